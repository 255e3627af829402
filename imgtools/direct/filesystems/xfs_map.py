"""Inodes of XFS, their two forks, and the extents that the forks map.

Source: "XFS Algorithms & Data Structures", chapters On-disk Inode and Data Extents.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from imgtools.direct.filesystems.base import Extents, read_exactly
from imgtools.direct.filesystems.xfs_super import Super
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

FORMAT_DEVICE = 0
FORMAT_LOCAL = 1
FORMAT_EXTENTS = 2
FORMAT_BTREE = 3
FLAG_REALTIME = 0x1
FLAG2_BIGTIME = 0x8
FLAG2_NREXT64 = 0x10
FLAG2_KNOWN = 0x1F  # with DAX, reflink, extent size for copying
MAX_EXTENTS = 1_000_000
MAX_LEVELS = 9
BMBT = {4: (b"BMAP", 24), 5: (b"BMA3", 72)}


class Extent(NamedTuple):
    """``length`` blocks from block ``offset`` of the file lie from filesystem block ``block``."""

    offset: int
    block: int
    length: int
    unwritten: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """One fork of an inode as stored inside it."""

    form: int
    data: bytes
    extents: int


class Inode:
    """An inode's raw form, checked as the kernel's verifier does in the main."""

    def __init__(self, source: BlockStream, sb: Super, number: int) -> None:
        self.number = number
        at = sb.inode_address(number)
        self.raw = raw = read_exactly(source, at, sb.inode_size, f"XFS inode {number}")
        self.mode, self.version, self.form = struct.unpack_from(">HBB", raw, 2)
        self.flags2: int = 0
        self.core = 100
        if raw[:2] != b"IN" or (self.version != 3 and (sb.version == 5 or self.version > 2)):
            raise DamagedError(f"XFS inode {number} is no inode")
        if self.version == 3:
            own, uuid = struct.unpack_from(">Q16s", raw, 152)
            if sb.version != 5 or own != number or uuid != sb.meta_uuid:
                raise DamagedError(f"XFS inode {number} belongs elsewhere")
            self.flags2 = struct.unpack_from(">Q", raw, 120)[0]
            self.core = 176
        if not self.mode:
            raise DamagedError(f"XFS inode {number} is in a directory but not in use")
        self.size, self.blocks = struct.unpack_from(">QQ", raw, 56)
        if self.size >> 63 or self.blocks > sb.blocks:
            raise DamagedError(f"XFS inode {number} has an impossible size")
        if struct.unpack_from(">H", raw, 90)[0] & FLAG_REALTIME or self.flags2 & ~FLAG2_KNOWN:
            raise DirectUnsupportedError("a realtime file or one of an unknown kind on XFS")

    @property
    def nlink(self) -> int:
        form, at = (">H", 6) if self.version == 1 else (">I", 16)
        return int(struct.unpack_from(form, self.raw, at)[0])

    def time(self, at: int) -> int:
        """Nanoseconds since the epoch of the timestamp at byte ``at``."""
        if self.flags2 & FLAG2_BIGTIME:
            return int(struct.unpack_from(">Q", self.raw, at)[0]) - (1 << 31) * 10**9
        seconds, nanoseconds = struct.unpack_from(">ii", self.raw, at)
        return int(seconds) * 10**9 + int(nanoseconds)

    def _counts(self) -> tuple[int, int]:
        """How many extents the data and the attribute fork have."""
        if self.flags2 & FLAG2_NREXT64:
            return (
                struct.unpack_from(">Q", self.raw, 24)[0],
                struct.unpack_from(">I", self.raw, 76)[0],
            )
        data, attributes = struct.unpack_from(">IH", self.raw, 76)
        return data, attributes

    def data_fork(self) -> Fork:
        """The fork of the content."""
        end = self._attribute_start() or len(self.raw)
        return Fork(form=self.form, data=self.raw[self.core : end], extents=self._counts()[0])

    def attribute_fork(self) -> Fork | None:
        """The fork of the extended attributes, if there is one."""
        start = self._attribute_start()
        if not start:
            return None
        return Fork(form=self.raw[83], data=self.raw[start:], extents=self._counts()[1])

    def _attribute_start(self) -> int:
        units = self.raw[82]
        start = self.core + units * 8 if units else 0
        if start >= len(self.raw):
            raise DamagedError(f"XFS inode {self.number}: the attribute fork starts outside")
        return start


class Mapper:
    """Reads the extents of forks."""

    def __init__(self, source: BlockStream, sb: Super) -> None:
        self._source = source
        self._super = sb

    def extents(self, fork: Fork, owner: int) -> list[Extent]:
        """All extents of a fork in order.  Raises DamagedError."""
        if fork.extents > MAX_EXTENTS:
            raise DirectUnsupportedError(f"an XFS file of {fork.extents} extents")
        if fork.form == FORMAT_EXTENTS:
            if fork.extents * 16 > len(fork.data):
                raise DamagedError(f"XFS inode {owner}: more extents than fit")
            found = self._records(fork.data[: fork.extents * 16])
        elif fork.form == FORMAT_BTREE:
            found = self._tree(fork, owner)
        else:
            raise DamagedError(f"XFS inode {owner}: a fork of the wrong format {fork.form}")
        if len(found) != fork.extents:
            raise DamagedError(f"XFS inode {owner}: {len(found)} of {fork.extents} extents")
        end = 0
        for extent in found:
            if extent.offset < end or not extent.length:
                raise DamagedError(f"XFS inode {owner}: extents overlap")
            end = extent.offset + extent.length
        return found

    def stream(self, extents: list[Extent], size: int) -> BlockStream:
        """The content that ``extents`` make up; unwritten ones read as zeros."""
        unit = self._super.block_size
        written = [
            (
                extent.offset * unit,
                extent.length * unit,
                self._super.block_address(extent.block, extent.length),
            )
            for extent in extents
            if not extent.unwritten
        ]
        return Extents(self._source, size, written)

    def _records(self, data: bytes) -> list[Extent]:
        found = []
        for high, low in struct.iter_unpack(">QQ", data):
            extent = Extent(
                offset=high >> 9 & (1 << 54) - 1,
                block=(high & 0x1FF) << 43 | low >> 21,
                length=low & (1 << 21) - 1,
                unwritten=bool(high >> 63),
            )
            self._super.block_address(extent.block, extent.length)
            found.append(extent)
        return found

    def _tree(self, fork: Fork, owner: int) -> list[Extent]:
        level, count = struct.unpack_from(">HH", fork.data)
        room = (len(fork.data) - 4) // 16
        if not 0 < level < MAX_LEVELS or not 0 < count <= room:
            raise DamagedError(f"XFS inode {owner}: the root of its extents is wrong")
        at = 4 + room * 8
        waiting = list(struct.unpack_from(f">{count}Q", fork.data, at))
        while level:
            level -= 1
            if level == 0:
                break
            lower: list[int] = []
            for block in waiting:
                lower += self._pointers(block, level, owner)
                if len(lower) > MAX_EXTENTS:
                    raise DamagedError(f"XFS inode {owner}: too many blocks of extents")
            waiting = lower
        found: list[Extent] = []
        for block in waiting:
            found += self._leaf(block, owner)
            if len(found) > fork.extents:
                raise DamagedError(f"XFS inode {owner}: more extents than it says")
        return found

    def _node(self, block: int, level: int, owner: int) -> tuple[bytes, int, int]:
        at = self._super.block_address(block)
        raw = read_exactly(self._source, at, self._super.block_size, "a block of XFS extents")
        magic, header = BMBT[self._super.version]
        found_level, count = struct.unpack_from(">HH", raw, 4)
        room = (len(raw) - header) // 16
        if raw[:4] != magic or found_level != level or not 0 < count <= room:
            raise DamagedError(f"XFS inode {owner}: a block of its extents is wrong")
        if header == 72 and struct.unpack_from(">Q", raw, 56)[0] != owner:
            raise DamagedError(f"XFS inode {owner}: a block of its extents is another's")
        return raw, header, count

    def _pointers(self, block: int, level: int, owner: int) -> tuple[int, ...]:
        raw, header, count = self._node(block, level, owner)
        room = (len(raw) - header) // 16
        return struct.unpack_from(f">{count}Q", raw, header + room * 8)

    def _leaf(self, block: int, owner: int) -> list[Extent]:
        raw, header, count = self._node(block, 0, owner)
        return self._records(raw[header : header + count * 16])
