"""Vet a VMDK: a sparse extent (also streamOptimized) or a plain descriptor.

Sources: VMware's "Virtual Disk Format 5.0" and, where readers differ, block/vmdk.c of qemu,
whose reading is what matters for safety: it finds ``parentFileNameHint`` anywhere in the
descriptor (a comment will do), and looks for it in the 20 sectors after the header whatever the
header says.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from dataclasses import dataclass, field

from imgtools.errors import ImageError
from imgtools.image.header import Extent, ImageHeader, Problem
from imgtools.image.signature import VMDK_COWD, VMDK_SPARSE, is_vmdk_descriptor
from imgtools.image.source import Source

MAX_DESCRIPTOR = (1 << 20) - 1
MAX_LINES = 20_000
# Grain tables that are looked through (each covers 32 MiB as VMware makes them).
MAX_TABLES = 16384
EMBEDDED = (512, 20 * 512)
_GD_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_SPACE = b" \t\n\v\f\r"
_HINT = b"parentFileNameHint"
MAX_NAME = 1023

_EXTENT = re.compile(
    rb'(RW|RDONLY|NOACCESS)[ \t]+(\d{1,19})[ \t]+([A-Z]{3,10})(?:[ \t]+"([^"\r\n]{1,511})"'
    rb"(?:[ \t]+(\d{1,19}))?)?(?:[ \t].*)?"
)
_FLAT = frozenset({"FLAT", "VMFS"})
_SPARSE = frozenset({"SPARSE", "VMFSSPARSE", "SESPARSE"})


@dataclass(slots=True)
class Descriptor:
    """The lines of a descriptor that matter."""

    create_type: str = ""
    parent: bytes | None = None
    parent_cid: str = "ffffffff"
    extents: list[Extent] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def bad(self, code: str, message: str) -> None:
        """Note a fatal problem."""
        self.problems.append(Problem(code=f"vmdk.{code}", message=message))


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header or descriptor of a VMDK.  Raises ImageError when it is none."""
    magic = source.peek(0, 4)
    if magic == VMDK_SPARSE:
        return _vet_sparse(source, stated=stated)
    if magic == VMDK_COWD:
        return _vet_cowd(source, stated=stated)
    if not is_vmdk_descriptor(source):
        raise ImageError(f"{source.path}: not a VMDK image (no signature, no descriptor)")
    return _vet_descriptor(source, 0, source.size, stated=stated)


def parse_descriptor(raw: bytes) -> Descriptor:
    """Read a descriptor within bounds; ``raw`` ends at its first NUL, as in C."""
    result = Descriptor()
    text = raw.split(b"\0", 1)[0]
    lines = text.split(b"\n")
    if len(lines) > MAX_LINES:
        result.bad("descriptor", f"a descriptor of {len(lines)} lines is beyond any sane size")
        return result
    for line in lines:
        words = line.strip(_SPACE)
        if words.split(None, 1)[:1] in ([b"RW"], [b"RDONLY"], [b"NOACCESS"]):
            _extent(words, result)
    result.create_type = _value(text, b"createType")
    result.parent_cid = _value(text, b"parentCID").lower() or "ffffffff"
    _parent(text, result)
    return result


def _value(text: bytes, name: bytes) -> str:
    found = re.search(rb"^[ \t]*" + name + rb'[ \t]*=[ \t]*"?([^"\r\n]{0,127})', text, re.MULTILINE)
    return found[1].strip().decode("ascii", errors="replace") if found else ""


def _extent(words: bytes, result: Descriptor) -> None:
    match = _EXTENT.fullmatch(words)
    kind = match[3].decode() if match else ""
    if match is None or (kind in _FLAT | _SPARSE and match[4] is None):
        shown = words[:80].decode(errors="replace")
        result.bad("extent", f"a senseless extent line: {shown!r}")
        return
    result.extents.append(
        Extent(
            access=match[1].decode(),
            kind=kind,
            size=int(match[2]) * 512,
            file=match[4],
            offset=int(match[5] or 0) * 512,
        )
    )
    if kind not in _FLAT | _SPARSE or match[1] != b"RW":
        # qemu leaves such extents out, and everything behind them moves.
        access = match[1].decode()
        result.bad("unsupported", f"extents of the kind {access} {kind} cannot be read")


def _parent(text: bytes, result: Descriptor) -> None:
    """The parent's name, wherever it stands; two different ones are an attack."""
    names: set[bytes] = set()
    position = text.find(_HINT)
    while position >= 0 and len(names) < 3:
        start = position + len(_HINT)
        end = text.find(b'"', start + 2)
        if text[start : start + 2] != b'="' or not 0 < end - start - 2 <= MAX_NAME:
            result.bad("parent", "the name of the parent image is senseless")
            return
        names.add(text[start + 2 : end])
        position = text.find(_HINT, end)
    if len(names) > 1:
        result.bad("parent", "it names several parent images")
    result.parent = min(names, default=None)


def _vet_descriptor(source: Source, offset: int, length: int, *, stated: bool) -> ImageHeader:
    raw = source.peek(offset, min(length, MAX_DESCRIPTOR))
    descriptor = parse_descriptor(raw)
    if length > MAX_DESCRIPTOR:
        descriptor.bad("descriptor", f"a descriptor of {length} bytes is beyond any sane size")
    if not descriptor.extents and not descriptor.problems:
        descriptor.bad("extent", "the descriptor names no extent")
    elif not descriptor.create_type:
        descriptor.bad("descriptor", "the descriptor does not say its createType")
    return ImageHeader(
        path=source.path,
        format="vmdk",
        stated=stated,
        file_size=source.size,
        virtual_size=sum(extent.size for extent in descriptor.extents),
        identity=source.identity,
        variant=descriptor.create_type,
        backing_file=descriptor.parent,
        backing_format=None if descriptor.parent is None else "vmdk",
        needs_parent=descriptor.parent_cid != "ffffffff",
        extents=tuple(descriptor.extents),
        problems=tuple(descriptor.problems),
    )


@dataclass(slots=True)
class _Sparse:
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_size: int
    entries_per_table: int
    backup_directory: int
    directory: int
    overhead: int
    unclean: bool
    compression: int


def _read_sparse(source: Source, offset: int) -> _Sparse:
    raw = source.read(offset, 512, "the end of the VMDK header")
    if raw[:4] != VMDK_SPARSE:
        raise ImageError(f"{source.path}: damaged VMDK: no header at byte {offset}")
    # Of the 512 bytes, the one at 72 says "unclean shutdown"; four check characters follow it.
    return _Sparse(*struct.unpack("<IIQQQQIQQQ?4xH", raw[4:79]))


def _vet_sparse(source: Source, *, stated: bool) -> ImageHeader:
    head = _read_sparse(source, 0)
    if head.capacity == 0 and head.descriptor_offset:
        offset = head.descriptor_offset * 512
        return _vet_descriptor(source, offset, max(0, source.size - offset), stated=stated)
    descriptor = _embedded(source, head)
    if head.directory == _GD_AT_END:
        # streamOptimized: a footer (a copy of the header) stands before the end marker.
        head = _read_sparse(source, (source.size // 512) * 512 - 1024)
    _check_sparse(source, head, descriptor)
    stream = head.compression == 1
    return ImageHeader(
        path=source.path,
        format="vmdk",
        stated=stated,
        file_size=source.size,
        virtual_size=head.capacity * 512,
        identity=source.identity,
        version=head.version,
        variant="streamOptimized" if stream else descriptor.create_type or "monolithicSparse",
        cluster_size=head.grain * 512,
        dirty=head.unclean,
        compression="zlib" if stream else None,
        backing_file=descriptor.parent,
        backing_format=None if descriptor.parent is None else "vmdk",
        needs_parent=descriptor.parent_cid != "ffffffff",
        problems=tuple(descriptor.problems),
    )


def _embedded(source: Source, head: _Sparse) -> Descriptor:
    """The embedded descriptor, read where the header puts it and where qemu reads it."""
    first = parse_descriptor(source.peek(*EMBEDDED)) if head.descriptor_offset else Descriptor()
    place = (head.descriptor_offset * 512, min(head.descriptor_size * 512, MAX_DESCRIPTOR))
    if head.descriptor_offset and place != EMBEDDED:
        second = parse_descriptor(source.peek(*place))
        if second.parent != first.parent:
            first.bad("parent", "it names different parent images to different readers")
        first.problems += second.problems
    elif not head.descriptor_offset and _HINT in source.peek(*EMBEDDED):
        first.bad("parent", "it has no descriptor but names a parent image")
    # What an embedded descriptor says of extents is the file itself and read by nobody.
    first.problems = [problem for problem in first.problems if problem.code != "vmdk.extent"]
    return first


def _check_sparse(source: Source, head: _Sparse, result: Descriptor) -> None:
    if head.version not in (1, 2, 3):
        result.bad("unsupported", f"VMDK version {head.version} is unknown")
    if head.compression not in (0, 1):
        result.bad("unsupported", f"compression method {head.compression} is unknown")
    if not 0 < head.grain <= 0x200000 or not 0 < head.entries_per_table <= 512:
        result.bad("grain", "the size of its grains or grain tables makes no sense")
        return
    tables = -(-head.capacity // (head.grain * head.entries_per_table))
    if tables > 32 << 20:
        result.bad("size", f"the virtual size of {head.capacity * 512} bytes is beyond VMDK")
    elif head.directory * 512 + tables * 4 > source.size:
        result.bad("truncated", "truncated: its grain directory is beyond the end of the file")
    elif head.overhead * 512 > source.size:
        result.bad("truncated", "truncated: its data would begin beyond the end of the file")
    elif head.compression == 0 and tables <= MAX_TABLES:
        _check_grains(source, head, tables, result)


def _check_grains(source: Source, head: _Sparse, tables: int, result: Descriptor) -> None:
    """qemu reads grains beyond the end of the file as zeros; a truncated image must not pass."""
    directory = _numbers(source.peek(head.directory * 512, tables * 4))
    last = max(directory, default=0)
    for table in directory:
        if table:
            grains = source.peek(table * 512, head.entries_per_table * 4)
            last = max(last, max(_numbers(grains), default=0))
    if last * 512 >= source.size:
        message = f"truncated: the file has {source.size} bytes and lacks guest data"
        result.bad("truncated", message)


def _numbers(raw: bytes) -> array[int]:
    numbers = array("I")
    numbers.frombytes(raw[: len(raw) // 4 * 4])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _vet_cowd(source: Source, *, stated: bool) -> ImageHeader:
    raw = source.read(0, 44, "the end of the VMDK header")
    version, _flags, sectors, grain, directory, tables = struct.unpack("<IIIIII", raw[4:28])
    result = Descriptor()
    if directory * 512 + tables * 4 > source.size:
        result.bad("truncated", "truncated: its grain directory is beyond the end of the file")
    return ImageHeader(
        path=source.path,
        format="vmdk",
        stated=stated,
        file_size=source.size,
        virtual_size=sectors * 512,
        identity=source.identity,
        version=version,
        variant="vmfsSparse",
        cluster_size=grain * 512,
        problems=tuple(result.problems),
    )
