"""Vet a qcow2 header, versions 2 and 3.

Source: docs/interop/qcow2.rst of qemu; the bounds are those of qemu's own reader
(block/qcow2.h: QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE, QCOW_MAX_SNAPSHOTS …).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imgtools.errors import ImageError
from imgtools.image.header import Bitmap, ImageHeader, Problem, Snapshot
from imgtools.image.qcow2_data import lost_clusters
from imgtools.image.signature import QCOW2
from imgtools.image.source import Source

MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MAX_L1_BYTES = 32 << 20
MAX_REFTABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE = 16 << 20
MAX_SNAPSHOT_EXTRA = 1024
MAX_BACKING_NAME = 1023
MAX_EXTENSIONS = 64
MAX_BITMAPS = 65535
MAX_BITMAP_DIRECTORY = 16 << 20

_INCOMPATIBLE = {
    0: "dirty",
    1: "corrupt",
    2: "external data file",
    3: "compression type",
    4: "extended L2 entries",
}
_COMPATIBLE = {0: "lazy refcounts"}
_AUTOCLEAR = {0: "bitmaps", 1: "raw external data"}
_COMPRESSION = {0: "zlib", 1: "zstd"}
_ENCRYPTION = {0: None, 1: "aes", 2: "luks"}

_EXT_END = 0
_EXT_BACKING_FORMAT = 0xE2792ACA
_EXT_FEATURES = 0x6803F857
_EXT_BITMAPS = 0x23852875
_EXT_CRYPTO = 0x0537BE77
_EXT_DATA_FILE = 0x44415441
_BITMAP_IN_USE, _BITMAP_AUTO = 1, 2


@dataclass(slots=True)
class _Head:
    """The fixed fields, in the order of the format."""

    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    size: int
    crypt: int
    l1_entries: int
    l1_offset: int
    reftable_offset: int
    reftable_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = 72
    compression: int = 0

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l2_entry_bits(self) -> int:
        return 4 if self.incompatible & (1 << 4) else 3


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a qcow2 image.

    Raises ImageError when it is no qcow2 header at all, or the fields that everything else
    rests on are senseless; whatever else is wrong becomes a problem of the result.
    """
    head = _read_head(source)
    problems: list[Problem] = []
    _check_features(head, problems)
    _check_tables(source, head, problems)
    extensions = _extensions(source, head, problems)
    backing = _backing_name(source, head, problems)
    data_file = extensions.get(_EXT_DATA_FILE)
    if not head.incompatible & (1 << 2):
        data_file = None
    elif data_file is None:
        problems.append(
            Problem(code="qcow2.data-file", message="the external data file has no name")
        )
    backing_format = extensions.get(_EXT_BACKING_FORMAT)
    if not any(problem.fatal for problem in problems) and data_file is None:
        problems += lost_clusters(source, head)
    return ImageHeader(
        path=source.path,
        format="qcow2",
        stated=stated,
        file_size=source.size,
        virtual_size=head.size,
        identity=source.identity,
        version=head.version,
        variant="compat 0.10" if head.version == 2 else "compat 1.1",
        cluster_size=head.cluster_size,
        backing_file=backing,
        backing_format=None if backing_format is None else _text(backing_format),
        data_file=data_file,
        data_file_raw=bool(head.autoclear & 2),
        encryption=_ENCRYPTION.get(head.crypt),
        compression=_COMPRESSION.get(head.compression),
        dirty=bool(head.incompatible & 1),
        features=_feature_names(head),
        snapshots=_snapshots(source, head, problems),
        bitmaps=_bitmaps(source, head, extensions.get(_EXT_BITMAPS), problems),
        problems=tuple(problems),
    )


def _read_head(source: Source) -> _Head:
    raw = source.read(0, 72, "the end of the qcow2 header")
    if raw[:4] != QCOW2:
        raise ImageError(f"{source.path}: not a qcow2 image (no QFI signature)")
    fields = struct.unpack(">IQIIQIIQQIIQ", raw[4:72])
    head = _Head(*fields)
    if head.version not in (2, 3):
        raise ImageError(f"{source.path}: qcow2 version {head.version} is unknown")
    if not MIN_CLUSTER_BITS <= head.cluster_bits <= MAX_CLUSTER_BITS:
        raise ImageError(
            f"{source.path}: damaged qcow2 header: cluster size 2^{head.cluster_bits} "
            f"(2^{MIN_CLUSTER_BITS} to 2^{MAX_CLUSTER_BITS} are possible)"
        )
    if head.version == 3:
        _read_version3(source, head)
    return head


def _read_version3(source: Source, head: _Head) -> None:
    raw = source.read(72, 32, "the end of the qcow2 header")
    (head.incompatible, head.compatible, head.autoclear, head.refcount_order, length) = (
        struct.unpack(">QQQII", raw)
    )
    if not 104 <= length <= head.cluster_size:
        raise ImageError(f"{source.path}: damaged qcow2 header: its length is {length} bytes")
    head.header_length = length
    if length > 104:
        head.compression = source.read(104, 1, "the end of the qcow2 header")[0]


def _bits(value: int) -> list[int]:
    return [bit for bit in range(64) if value >> bit & 1]


def _feature_names(head: _Head) -> tuple[str, ...]:
    names = [_INCOMPATIBLE.get(bit, f"incompatible bit {bit}") for bit in _bits(head.incompatible)]
    names += [_COMPATIBLE.get(bit, f"compatible bit {bit}") for bit in _bits(head.compatible)]
    names += [_AUTOCLEAR.get(bit, f"autoclear bit {bit}") for bit in _bits(head.autoclear)]
    return tuple(names)


def _check_features(head: _Head, problems: list[Problem]) -> None:
    unknown = [bit for bit in _bits(head.incompatible) if bit not in _INCOMPATIBLE]
    if unknown:
        bits = ", ".join(map(str, unknown))
        problems.append(
            Problem(code="qcow2.feature", message=f"needs features that nobody knows (bits {bits})")
        )
    if head.incompatible & 1:
        problems.append(
            Problem(
                code="qcow2.dirty",
                message="marked dirty: it was not closed cleanly and its reference counts may "
                "be wrong (qemu-img check -r leaks repairs them)",
                fatal=False,
            )
        )
    if head.incompatible & 2:
        problems.append(
            Problem(
                code="qcow2.corrupt",
                message="marked corrupt: qemu found damage in its metadata; guest data may be "
                "lost (qemu-img check)",
                fatal=False,
            )
        )
    if head.crypt not in _ENCRYPTION:
        problems.append(
            Problem(code="qcow2.crypt", message=f"unknown encryption method {head.crypt}")
        )
    if head.compression not in _COMPRESSION:
        problems.append(
            Problem(
                code="qcow2.compression", message=f"unknown compression type {head.compression}"
            )
        )
    if head.refcount_order > 6:
        problems.append(
            Problem(
                code="qcow2.refcount", message=f"reference counts of 2^{head.refcount_order} bits"
            )
        )


def _check_tables(source: Source, head: _Head, problems: list[Problem]) -> None:
    def bad(code: str, message: str, *, fatal: bool = True) -> None:
        problems.append(Problem(code=f"qcow2.{code}", message=message, fatal=fatal))

    # One L2 table fills a cluster.
    reach = head.cluster_bits + head.cluster_bits - head.l2_entry_bits
    needed = (head.size + (1 << reach) - 1) >> reach
    if needed * 8 > MAX_L1_BYTES:
        bad("size", f"the virtual size of {head.size} bytes is beyond what qcow2 can address")
    elif head.l1_entries < needed:
        bad("l1-size", f"the L1 table has {head.l1_entries} entries and {needed} are needed")
    if head.l1_entries * 8 > MAX_L1_BYTES:
        bad("l1-size", f"an L1 table of {head.l1_entries} entries is beyond any sane size")
    elif head.l1_entries:
        if head.l1_offset % head.cluster_size or not head.l1_offset:
            bad("l1-offset", f"the L1 table is at {head.l1_offset}, not on a cluster")
        elif head.l1_offset + head.l1_entries * 8 > source.size:
            bad("l1-beyond", f"truncated: the L1 table at {head.l1_offset} is beyond the end")
    if head.reftable_offset % head.cluster_size or not head.reftable_offset:
        bad("refcount", f"the refcount table is at {head.reftable_offset}, not on a cluster")
    elif head.reftable_offset >= source.size:
        bad(
            "refcount", f"truncated: the refcount table at {head.reftable_offset} is beyond the end"
        )
    if (
        not 0
        < head.reftable_clusters * head.cluster_size
        <= max(MAX_REFTABLE_BYTES, head.cluster_size)
    ):
        bad("refcount", f"a refcount table of {head.reftable_clusters} clusters makes no sense")


def _extensions(source: Source, head: _Head, problems: list[Problem]) -> dict[int, bytes]:
    """Header extensions by type, each at most once, all inside the first cluster."""
    found: dict[int, bytes] = {}
    end = head.cluster_size
    if head.backing_offset:
        end = min(end, max(head.backing_offset, head.header_length))
    offset = head.header_length
    for _ in range(MAX_EXTENSIONS):
        prefix = source.peek(offset, 8)
        if len(prefix) < 8 or offset + 8 > end:
            return found
        kind, length = struct.unpack(">II", prefix)
        if kind == _EXT_END:
            return found
        offset += 8
        if length > end - offset:
            problems.append(
                Problem(
                    code="qcow2.extension",
                    message=f"a header extension of {length} bytes does not fit into the header",
                )
            )
            return found
        if kind in found:
            # qemu takes the last one, others the first: two readers, two backing files.
            message = f"the header extension {kind:#010x} appears twice"
            problems.append(Problem(code="qcow2.extension", message=message))
        found[kind] = source.read(offset, length, "the end of its header extensions")
        offset += (length + 7) // 8 * 8
    problems.append(Problem(code="qcow2.extension", message="too many header extensions"))
    return found


def _backing_name(source: Source, head: _Head, problems: list[Problem]) -> bytes | None:
    if not head.backing_offset or not head.backing_length:
        return None
    length = head.backing_length
    if length > MAX_BACKING_NAME or head.backing_offset + length > head.cluster_size:
        problems.append(
            Problem(code="qcow2.backing", message="the backing file's name is outside the header")
        )
        return None
    return source.read(head.backing_offset, length, "its backing file's name")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")


def _snapshots(source: Source, head: _Head, problems: list[Problem]) -> tuple[Snapshot, ...]:
    if not head.snapshots:
        return ()
    if head.snapshots > MAX_SNAPSHOTS:
        message = f"{head.snapshots} internal snapshots are beyond any sane number"
        problems.append(Problem(code="qcow2.snapshots", message=message, fatal=False))
        return ()
    found: list[Snapshot] = []
    offset = head.snapshots_offset
    limit = offset + MAX_SNAPSHOT_TABLE
    for _ in range(head.snapshots):
        fixed = source.peek(offset, 40)
        entry = None if len(fixed) < 40 else _snapshot(source, offset, fixed)
        if entry is None or entry[1] > limit:
            message = f"the snapshot table is damaged after {len(found)} of {head.snapshots}"
            problems.append(Problem(code="qcow2.snapshots", message=message, fatal=False))
            break
        found.append(entry[0])
        offset = entry[1]
    return tuple(found)


def _snapshot(source: Source, offset: int, fixed: bytes) -> tuple[Snapshot, int] | None:
    """One snapshot and the offset of the next (entries are padded to 8 bytes)."""
    (l1_offset, l1_entries, id_length, name_length, seconds, _ns, _clock, state, extra_length) = (
        struct.unpack(">QIHHIIQII", fixed)
    )
    if extra_length > MAX_SNAPSHOT_EXTRA:
        return None
    length = extra_length + id_length + name_length
    rest = source.peek(offset + 40, length)
    if len(rest) < length:
        return None
    size = None
    if extra_length >= 8:
        state = struct.unpack(">Q", rest[:8])[0]
    if extra_length >= 16:
        size = struct.unpack(">Q", rest[8:16])[0]
    names = rest[extra_length:]
    snapshot = Snapshot(
        id=_text(names[:id_length]),
        name=_text(names[id_length:]),
        date_seconds=seconds,
        vm_state_size=state,
        virtual_size=size,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
    )
    return snapshot, offset + (40 + length + 7) // 8 * 8


def _bitmaps(
    source: Source, head: _Head, extension: bytes | None, problems: list[Problem]
) -> tuple[Bitmap, ...]:
    # Without the autoclear bit the extension is stale and must be ignored.
    if extension is None or not head.autoclear & 1:
        return ()
    found: list[Bitmap] = []
    count, size, offset = 0, 0, 0
    if len(extension) >= 24:
        count, _reserved, size, offset = struct.unpack(">IIQQ", extension[:24])
    if not 0 < count <= MAX_BITMAPS or size > MAX_BITMAP_DIRECTORY:
        message = f"a directory of {count} bitmaps in {size} bytes makes no sense"
        problems.append(Problem(code="qcow2.bitmaps", message=message, fatal=False))
        return ()
    directory = source.peek(offset, size)
    position = 0
    for _ in range(count):
        entry = _bitmap(directory, position)
        if entry is None:
            message = f"the bitmap directory is damaged after {len(found)} of {count}"
            problems.append(Problem(code="qcow2.bitmaps", message=message, fatal=False))
            break
        found.append(entry[0])
        position = entry[1]
    return tuple(found)


def _bitmap(directory: bytes, position: int) -> tuple[Bitmap, int] | None:
    """One directory entry and the position of the next."""
    fixed = directory[position : position + 24]
    if len(fixed) < 24:
        return None
    _table, _entries, flags, _kind, granularity, name_length, extra = struct.unpack(
        ">QIIBBHI", fixed
    )
    start = position + 24 + extra
    name = directory[start : start + name_length]
    if len(name) < name_length or granularity > 63:
        return None
    bitmap = Bitmap(name=_text(name), granularity=1 << granularity, flags=_bitmap_flags(flags))
    return bitmap, (start + name_length + 7) // 8 * 8


def _bitmap_flags(flags: int) -> tuple[str, ...]:
    names = ((_BITMAP_IN_USE, "in-use"), (_BITMAP_AUTO, "auto"))
    return tuple(name for bit, name in names if flags & bit)
