"""Vet a VHD (``vpc`` to qemu): fixed, dynamic or differencing.

Sources: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0, and block/vpc.c of qemu
for which of the two sizes in the footer counts.
"""

from __future__ import annotations

import struct
import sys
from array import array

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import VHD, VHD_FIXED, VHD_FOOTER, vhd_checksum_fits
from imgtools.image.source import Source

_DYNAMIC, _DIFFERENCING = 3, 4
_TYPES = {VHD_FIXED: "fixed", _DYNAMIC: "dynamic", _DIFFERENCING: "differencing"}
# The largest size in the specification's CHS terms; larger disks count by the size field.
_MAX_GEOMETRY = 65535 * 16 * 255
MAX_SECTORS = 0xFF00_0000
# 2 TiB in blocks of 2 MiB, the usual size.
MAX_BLOCKS = 1 << 20
_UNUSED = 0xFFFF_FFFF
# Creators whose images have the size of the size field, not of the geometry.
_BY_SIZE = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0")


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the footer (and header) of a VHD.  Raises ImageError when it has none."""
    footer = source.peek(0, VHD_FOOTER)
    at_start = footer[:8] == VHD
    if not at_start:
        footer = source.peek(source.size - VHD_FOOTER, VHD_FOOTER)
    if footer[:8] != VHD or len(footer) < VHD_FOOTER:
        raise ImageError(f"{source.path}: not a VHD image (no footer)")
    (kind,) = struct.unpack(">I", footer[60:64])
    problems: list[Problem] = []
    if not vhd_checksum_fits(footer, 64):
        problems.append(
            Problem(code="vhd.checksum", message="the checksum of its footer is wrong", fatal=False)
        )
    size = _virtual_size(footer)
    block, parent = None, None
    if kind == VHD_FIXED:
        _check_fixed(source, size, problems)
    elif kind in _TYPES:
        block, parent = _check_dynamic(source, footer, size, problems)
    else:
        problems.append(Problem(code="vhd.unsupported", message=f"VHD of unknown type {kind}"))
    if kind == _DIFFERENCING:
        message = f"a differencing VHD, which cannot be read; its parent is {parent!r}"
        problems.append(Problem(code="vhd.unsupported", message=message))
    return ImageHeader(
        path=source.path,
        format="vpc",
        stated=stated,
        file_size=source.size,
        virtual_size=size,
        identity=source.identity,
        version=1,
        variant=_TYPES.get(kind, ""),
        cluster_size=block,
        backing_file=parent.encode("utf-8", "surrogatepass") if parent else None,
        backing_format="vpc" if parent else None,
        needs_parent=kind == _DIFFERENCING,
        problems=tuple(problems),
    )


def _virtual_size(footer: bytes) -> int:
    (size,) = struct.unpack(">Q", footer[48:56])
    cylinders, heads, sectors = struct.unpack(">HBB", footer[56:60])
    geometry = cylinders * heads * sectors
    if footer[28:32] in _BY_SIZE or geometry in (0, _MAX_GEOMETRY):
        return int(size) // 512 * 512
    return int(geometry) * 512


def _check_fixed(source: Source, size: int, problems: list[Problem]) -> None:
    if size > source.size - VHD_FOOTER:
        message = f"truncated: a fixed disk of {size} bytes in a file of {source.size}"
        problems.append(Problem(code="vhd.truncated", message=message))


def _check_dynamic(
    source: Source, footer: bytes, size: int, problems: list[Problem]
) -> tuple[int | None, str | None]:
    """Check the dynamic header and its table; return the block size and the parent's name."""
    (offset,) = struct.unpack(">Q", footer[16:24])
    raw = source.peek(offset, 1024)
    if len(raw) < 1024 or raw[:8] != b"cxsparse":
        problems.append(
            Problem(code="vhd.truncated", message=f"truncated: no dynamic header at byte {offset}")
        )
        return None, None
    table, _version, entries, block = struct.unpack(">QIII", raw[16:36])
    if block < 512 or block & (block - 1):
        problems.append(Problem(code="vhd.block", message=f"blocks of {block} bytes make no sense"))
    elif size > MAX_SECTORS * 512 or entries > MAX_SECTORS * 512 // block:
        problems.append(Problem(code="vhd.size", message=f"{size} bytes are beyond VHD (2040 GiB)"))
    elif entries * block < size:
        message = f"its table of {entries} blocks does not cover {size} bytes"
        problems.append(Problem(code="vhd.size", message=message))
    elif table + entries * 4 > source.size:
        problems.append(
            Problem(code="vhd.truncated", message="truncated: its table is beyond the end")
        )
    else:
        _check_blocks(source, table, entries, block, problems)
    name = raw[64:576].decode("utf-16-be", errors="replace").split("\0", 1)[0]
    return block, name or None


def _check_blocks(
    source: Source, table: int, entries: int, block: int, problems: list[Problem]
) -> None:
    blocks = array("I")
    raw = source.peek(table, min(entries, MAX_BLOCKS) * 4)
    blocks.frombytes(raw[: len(raw) // 4 * 4])
    if sys.byteorder == "little":
        blocks.byteswap()
    last = max((entry for entry in blocks if entry != _UNUSED), default=None)
    bitmap = (block // 4096 + 511) // 512 * 512
    if last is not None and last * 512 + bitmap + block > source.size:
        message = f"truncated: the file has {source.size} bytes and lacks allocated blocks"
        problems.append(Problem(code="vhd.truncated", message=message))
