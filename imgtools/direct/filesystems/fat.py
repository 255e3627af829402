"""FAT12, FAT16 and FAT32 with long names, as the kernel's vfat driver shows them.

Read here and not by dissect.fat, which joins clusters wrongly, follows looped chains for ever and
takes damaged directories for short ones.  Source: Microsoft's FAT specification; what Linux makes
of it: fs/fat/{inode,dir,misc}.c (umask 022, utf8, UTC, as in the appliance).
"""

from __future__ import annotations

import stat as _stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from imgtools.direct.filesystems.base import Entry, Memory, NodeTree, read_exactly
from imgtools.direct.filesystems.fat_table import Table, name_from_utf16, stream
from imgtools.direct.streams import BlockStream
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    GuestFileNotFoundError,
    GuestOperationError,
)
from imgtools.model.files import FileKind, Stat, StatVFS

READ_ONLY, VOLUME, DIRECTORY, LONG = 0x1, 0x8, 0x10, 0xF
LOWER_BASE, LOWER_EXTENSION = 0x8, 0x10
DELETED, KANJI_DELETED = 0xE5, 0x05
LAST_SLOT = 0x40
MAX_SLOTS = 20
MAX_DIRECTORY = 2 << 20  # FAT_MAX_DIR_SIZE
MAX_FAT12 = 0xFF4
NAME_MAX = 255 * 6
RECORD = 32
_DAYS_BEFORE = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 0, 0, 0)
_DAYS_TO_1980 = 3652


class Node(NamedTuple):
    """A short directory entry and where it stands (-1 for the root)."""

    position: int
    attributes: int
    cluster: int
    size: int
    modified: tuple[int, int]  # date, time
    accessed: int  # date


def unix_time(date: int, time: int) -> int:
    """Nanoseconds since the epoch of a DOS date and time in UTC (fat_time_fat2unix)."""
    year, month, day = date >> 9, max(1, date >> 5 & 15), max(1, date & 31) - 1
    leap = (year + 3) // 4
    if year > 120:  # 2100 is no leap year
        leap -= 1
    if year % 4 == 0 and year != 120 and month > 2:
        leap += 1
    days = year * 365 + leap + _DAYS_BEFORE[month] + day + _DAYS_TO_1980
    return (days * 86400 + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2) * 10**9


class _Geometry:
    """The boot sector; offsets in bytes."""

    def __init__(self, source: BlockStream) -> None:
        raw = read_exactly(source, 0, 512, "the FAT boot sector")
        sector, per_cluster, reserved, fats, entries, small, media, length16 = struct.unpack_from(
            "<HBHBHHBH", raw, 11
        )
        large, length32 = struct.unpack_from("<II", raw, 32)
        length = length16 or length32
        sane = (
            sector in (512, 1024, 2048, 4096)
            and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
            and reserved
            and fats
            and length
            and (media >= 0xF8 or media == 0xF0)
            and entries * RECORD % sector == 0
        )
        if not sane:
            raise DamagedError("the FAT boot sector is inconsistent")
        total = small or large
        self.cluster = sector * per_cluster
        self.table = reserved * sector
        self.root = (reserved + fats * length) * sector
        self.root_size = entries * RECORD
        self.heap = self.root + self.root_size
        clusters = (total - self.heap // sector) // per_cluster
        if total * sector > source.size or clusters <= 0:
            raise DamagedError("the FAT filesystem is larger than its device")
        self.root_cluster = 0 if length16 else struct.unpack_from("<I", raw, 44)[0]
        self.bits = 28 if not length16 else 16 if clusters > MAX_FAT12 else 12
        stored = 32 if self.bits == 28 else self.bits
        self.end = min(clusters, length * sector * 8 // stored - 2) + 2


class FatTree(NodeTree[Node]):
    """A FAT filesystem.  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._source = source
        self._geometry = _Geometry(source)
        self._table = Table(source, self._geometry.table, self._geometry.bits, self._geometry.end)
        root = Node(-1, DIRECTORY, self._geometry.root_cluster, 0, (0, 0), 0)
        super().__init__("the FAT filesystem", root)

    def _key(self, name: bytes) -> bytes:
        return name.lower()

    def _number(self, node: Node) -> int:
        return 1 if node.position < 0 else node.position // RECORD + 2

    def _walk(self, path: bytes) -> Node:
        try:
            return super()._walk(path)
        except GuestFileNotFoundError:
            name = path.rpartition(b"/")[2]
            if b"~" in name or name.endswith(b".") or not name.isascii():
                raise DirectUnsupportedError("a FAT lookup by short name") from None
            raise

    # -- nodes --------------------------------------------------------------------------------

    def _directory_stream(self, node: Node) -> tuple[BlockStream, list[int]]:
        """A directory's content, and the place on the device of each of its pieces."""
        geometry = self._geometry
        if node.position < 0 and geometry.bits != 28:
            data = read_exactly(self._source, geometry.root, geometry.root_size, "the FAT root")
            return Memory(data), [geometry.root]
        clusters = []
        for cluster in self._table.chain(node.cluster):
            clusters.append(cluster)
            if len(clusters) * geometry.cluster > MAX_DIRECTORY:
                raise DamagedError("a FAT directory is too large")
        size = len(clusters) * geometry.cluster
        content = stream(self._source, iter(clusters), size, geometry.cluster, geometry.heap)
        return content, [geometry.heap + (one - 2) * geometry.cluster for one in clusters]

    def _node_stat(self, node: Node) -> Stat:
        directory = bool(node.attributes & DIRECTORY)
        size, nlink = node.size, 1
        if directory:
            content, _ = self._directory_stream(node)
            size = content.size
            nlink = sum(one.attributes >> 4 & 1 for _, one in self._records(node))
            nlink += 2 if node.position < 0 else 0
        mode = _stat.S_IFDIR | 0o755 if directory else _stat.S_IFREG | 0o755
        if node.attributes & READ_ONLY and not directory:
            mode &= ~0o222
        cluster = self._geometry.cluster
        root = node.position < 0
        modified = 0 if root else unix_time(*node.modified)
        return Stat(
            ino=self._number(node),
            mode=mode,
            nlink=nlink,
            uid=0,
            gid=0,
            size=size,
            blksize=cluster,
            blocks=-(-size // cluster) * cluster // 512,
            atime_ns=0 if root else unix_time(node.accessed, 0),
            mtime_ns=modified,
            ctime_ns=modified,
        )

    def _node_content(self, node: Node, found: Stat) -> BlockStream:
        cluster = self._geometry.cluster
        count = -(-found.size // cluster)
        if not node.cluster and count:
            raise DamagedError("a FAT file has a size but no clusters")
        clusters = self._table.chain(node.cluster, count) if count else iter(())
        return stream(self._source, clusters, found.size, cluster, self._geometry.heap)

    def _node_xattrs(self, node: Node) -> dict[bytes, bytes]:  # noqa: ARG002
        return {}

    def _node_readlink(self, node: Node) -> bytes:  # noqa: ARG002
        raise GuestOperationError("FAT has no symbolic links")

    def _space(self) -> StatVFS:
        """As fat_statfs: the kernel counts the table, it does not trust FSINFO."""
        free = self._table.free()
        cluster = self._geometry.cluster
        return StatVFS(
            bsize=cluster,
            frsize=cluster,
            blocks=self._geometry.end - 2,
            bfree=free,
            bavail=free,
            files=0,
            ffree=0,
            favail=0,
            namemax=NAME_MAX,
        )

    # -- directories --------------------------------------------------------------------------

    def _node_entries(self, node: Node) -> Iterator[Entry[Node]]:
        for name, inner in self._records(node):
            kind: FileKind = "d" if inner.attributes & DIRECTORY else "r"
            if name not in (b".", b".."):
                yield name, kind, inner

    def _records(self, node: Node) -> Iterator[tuple[bytes, Node]]:
        content, places = self._directory_stream(node)
        data = content.read_at(0, content.size)
        piece = len(data) // len(places) if places else 1
        slots: list[bytes] = []
        for at in range(0, len(data), RECORD):
            record = data[at : at + RECORD]
            attributes = record[11]
            if attributes == LONG:
                if record[0] != DELETED:
                    slots.append(record)
                continue
            if record[0] in (0, DELETED) or attributes & VOLUME:
                if slots:
                    raise DirectUnsupportedError("a FAT directory with a stray long name")
                continue
            position = places[at // piece] + at % piece
            yield _name_of(record, slots), self._node(record, position)
            slots = []

    def _node(self, record: bytes, position: int) -> Node:
        accessed, high, time, date, low, size = struct.unpack_from("<HHHHHI", record, 18)
        cluster = low | (high << 16 if self._geometry.bits == 28 else 0)
        return Node(position, record[11], cluster, size, (date, time), accessed)


def _name_of(record: bytes, slots: list[bytes]) -> bytes:
    return _long_name(record, slots) if slots else _short_name(record)


def _long_name(record: bytes, slots: list[bytes]) -> bytes:
    checksum = 0
    for value in record[:11]:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + value & 0xFF
    expected = list(range(len(slots), 0, -1))
    expected[0] |= LAST_SLOT
    regular = len(slots) <= MAX_SLOTS and [slot[0] for slot in slots] == expected
    if not regular or any(slot[13] != checksum for slot in slots):
        raise DirectUnsupportedError("a FAT directory with a stray long name")
    units = b"".join(slot[1:11] + slot[14:26] + slot[28:32] for slot in reversed(slots))
    for at in range(0, len(units), 2):
        if units[at : at + 2] == b"\0\0":
            units = units[:at]
            break
    return name_from_utf16(units)


def _short_name(record: bytes) -> bytes:
    base, extension = record[:8].rstrip(b" "), record[8:11].rstrip(b" ")
    if not (base + extension).isascii() or base[:1] == bytes([KANJI_DELETED]):
        raise DirectUnsupportedError("a FAT short name that is not ASCII")
    if record[12] & LOWER_BASE:
        base = base.lower()
    if record[12] & LOWER_EXTENSION:
        extension = extension.lower()
    return base + b"." + extension if extension else base
