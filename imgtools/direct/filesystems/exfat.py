"""exFAT, as the kernel's driver shows it (umask 022, utf8, UTC, as in the appliance).

Read here and not by dissect.fat, which reads the whole tree on opening and follows looped chains
for ever.  Source: Microsoft's exFAT specification; what Linux makes of it: fs/exfat.
"""

from __future__ import annotations

import stat as _stat
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from imgtools.direct.filesystems.base import Entry, Extents, NodeTree, read_exactly
from imgtools.direct.filesystems.fat_table import Table, name_from_utf16, stream
from imgtools.direct.streams import BlockStream
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    GuestFileNotFoundError,
    GuestOperationError,
)
from imgtools.model.files import Stat, StatVFS

FILE, BITMAP, STREAM, NAME = 0x85, 0x81, 0xC0, 0xC1
READ_ONLY, DIRECTORY = 0x1, 0x10
CONTIGUOUS = 0x2
MAX_DIRECTORY = 256 << 20  # the specification's bound
MAX_BITMAP = 64 << 20
NAME_MAX = 255 * 6
RECORD = 32


class Node(NamedTuple):
    """A file: where its directory entry stands (-1: the root) and what it says."""

    position: int
    attributes: int
    cluster: int
    size: int
    contiguous: bool
    valid: int
    modified: int
    accessed: int


class ExfatTree(NodeTree[Node]):
    """An exFAT filesystem.  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._source = source
        raw = read_exactly(source, 0, 512, "the exFAT boot sector")
        length, fat, _, heap, clusters, root = struct.unpack_from("<QIIIII", raw, 72)
        sector_log, cluster_log, fats = raw[108:111]
        sane = 9 <= sector_log <= 12 and cluster_log <= 25 - sector_log and clusters > 0
        if raw[3:11] != b"EXFAT   " or not sane:
            raise DamagedError("the exFAT boot sector is inconsistent")
        if fats != 1:
            raise DirectUnsupportedError("exFAT with two FATs")
        self._cluster = 1 << sector_log + cluster_log
        self._heap = heap << sector_log
        if self._heap + clusters * self._cluster > length << sector_log > source.size:
            raise DamagedError("the exFAT filesystem is larger than its device")
        self._clusters = clusters
        self._table = Table(source, fat << sector_log, 32, clusters + 2)
        super().__init__("the exFAT filesystem", Node(-1, DIRECTORY, root, 0, False, 0, 0, 0))

    def _key(self, name: bytes) -> bytes:
        return name.upper()

    def _number(self, node: Node) -> int:
        return 1 if node.position < 0 else node.position // RECORD + 2

    def _walk(self, path: bytes) -> Node:
        try:
            return super()._walk(path)
        except GuestFileNotFoundError:
            name = path.rpartition(b"/")[2]
            if not name.isascii() or name.endswith(b"."):
                raise DirectUnsupportedError("an exFAT lookup that may fold case") from None
            raise

    def _clusters_of(self, node: Node, size: int | None) -> Iterator[int]:
        count = None if size is None else -(-size // self._cluster)
        if count == 0:
            return iter(())
        if count is None or not node.contiguous:
            return self._table.chain(node.cluster, count)
        self._table.check(node.cluster)
        self._table.check(node.cluster + count - 1)
        return iter(range(node.cluster, node.cluster + count))

    def _places(self, node: Node) -> list[int]:
        size = None if node.position < 0 else node.size
        if size is not None and size > MAX_DIRECTORY:
            raise DamagedError("an exFAT directory is too large")
        places = []
        for cluster in self._clusters_of(node, size):
            places.append(self._heap + (cluster - 2) * self._cluster)
            if len(places) * self._cluster > MAX_DIRECTORY + self._cluster:
                raise DamagedError("an exFAT directory is too large")
        return places

    def _node_stat(self, node: Node) -> Stat:
        directory = bool(node.attributes & DIRECTORY)
        size, nlink = node.size, 1
        if directory:
            size = len(self._places(node)) * self._cluster if node.position < 0 else size
            nlink = 2 + sum(kind == "d" for _, kind, _ in self._node_entries(node))
        mode = _stat.S_IFDIR | 0o755 if directory else _stat.S_IFREG | 0o755
        if node.attributes & READ_ONLY and not directory:
            mode &= ~0o222
        return Stat(
            ino=self._number(node),
            mode=mode,
            nlink=nlink,
            uid=0,
            gid=0,
            size=size,
            blksize=self._cluster,
            blocks=-(-size // self._cluster) * self._cluster // 512,
            atime_ns=node.accessed,
            mtime_ns=node.modified,
            ctime_ns=node.modified,
        )

    def _node_content(self, node: Node, found: Stat) -> BlockStream:
        if node.valid != node.size:
            raise DirectUnsupportedError("an exFAT file that is not written to its end")
        clusters = self._clusters_of(node, found.size)
        if node.contiguous and found.size:
            at = self._heap + (node.cluster - 2) * self._cluster
            return Extents(self._source, found.size, [(0, found.size, at)])
        return stream(self._source, clusters, found.size, self._cluster, self._heap)

    def _node_xattrs(self, node: Node) -> dict[bytes, bytes]:  # noqa: ARG002
        return {}

    def _node_readlink(self, node: Node) -> bytes:  # noqa: ARG002
        raise GuestOperationError("exFAT has no symbolic links")

    # -- directories --------------------------------------------------------------------------

    def _raw_records(self, node: Node) -> Iterator[tuple[int, bytes]]:
        for place in self._places(node):
            data = read_exactly(self._source, place, self._cluster, "an exFAT directory")
            for at in range(0, len(data), RECORD):
                if data[at] == 0:
                    return
                yield place + at, data[at : at + RECORD]

    def _node_entries(self, node: Node) -> Iterator[Entry[Node]]:
        records = self._raw_records(node)
        for position, record in records:
            if record[0] != FILE:
                continue
            count = record[1]
            rest = [one for _, one in zip(range(count), (r for _, r in records), strict=False)]
            kinds = bytes(one[0] for one in rest)
            if count < 2 or kinds != bytes([STREAM]) + bytes([NAME]) * (count - 1):
                raise DirectUnsupportedError("an exFAT file with unusual directory entries")
            if _checksum(record, rest) != struct.unpack_from("<H", record, 2)[0]:
                raise DamagedError("an exFAT directory entry's checksum is wrong")
            units = b"".join(one[2:32] for one in rest[1:])[: rest[0][3] * 2]
            inner = _node_of(position, record, rest[0])
            yield (
                name_from_utf16(units),
                "d" if inner.attributes & DIRECTORY else "r",
                inner,
            )

    # -- space --------------------------------------------------------------------------------

    def _space(self) -> StatVFS:
        """As exfat_statfs: what the allocation bitmap does not mark is free."""
        for _, record in self._raw_records(self._root):
            if record[0] == BITMAP:
                break
        else:
            raise DamagedError("exFAT without an allocation bitmap")
        cluster, size = struct.unpack_from("<IQ", record, 20)
        needed = -(-self._clusters // 8)
        if size < needed or needed > MAX_BITMAP:
            raise DamagedError("the exFAT allocation bitmap is too small")
        at = self._heap + (self._table.check(cluster) - 2) * self._cluster
        bitmap = int.from_bytes(
            read_exactly(self._source, at, needed, "the exFAT allocation bitmap"), "little"
        )
        used = (bitmap & ((1 << self._clusters) - 1)).bit_count()
        free = self._clusters - used
        return StatVFS(
            bsize=self._cluster,
            frsize=self._cluster,
            blocks=self._clusters,
            bfree=free,
            bavail=free,
            files=0,
            ffree=0,
            favail=0,
            namemax=NAME_MAX,
        )


def _checksum(record: bytes, rest: list[bytes]) -> int:
    total = 0
    for index, value in enumerate(record + b"".join(rest)):
        if index not in (2, 3):
            total = ((total & 1) << 15) + (total >> 1) + value & 0xFFFF
    return total


def _time(date: int, time: int, hundredths: int, zone: int) -> int:
    try:
        moment = datetime(
            1980 + (date >> 9),
            max(1, date >> 5 & 15),
            max(1, date & 31),
            time >> 11,
            time >> 5 & 63,
            0,
            tzinfo=UTC,
        ) + timedelta(seconds=(time & 31) * 2)
    except ValueError:
        raise DirectUnsupportedError("an exFAT file with an impossible date") from None
    seconds = int(moment.timestamp())
    if zone & 0x80:
        quarters = zone & 0x7F
        seconds -= (quarters if quarters < 64 else quarters - 128) * 900
    return seconds * 10**9 + hundredths * 10**7


def _node_of(position: int, record: bytes, extension: bytes) -> Node:
    attributes = struct.unpack_from("<H", record, 4)[0]
    mtime, mdate, atime, adate = struct.unpack_from("<HHHH", record, 12)
    valid = struct.unpack_from("<Q", extension, 8)[0]
    cluster, size = struct.unpack_from("<IQ", extension, 20)
    return Node(
        position,
        attributes,
        cluster,
        size,
        bool(extension[1] & CONTIGUOUS),
        valid,
        _time(mdate, mtime, record[21], record[23]),
        _time(adate, atime, 0, record[24]),
    )
