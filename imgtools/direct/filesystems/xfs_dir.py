"""Directories of XFS: inside the inode, one block, or many data blocks.

The hash indexes (leaf, node) only speed up lookups: all names are in the data blocks.  Source:
"XFS Algorithms & Data Structures", chapter Directories; Linux fs/xfs/libxfs/xfs_da_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imgtools.direct.filesystems.base import Entry, read_exactly
from imgtools.direct.filesystems.xfs_map import FORMAT_LOCAL, Extent, Inode, Mapper
from imgtools.direct.filesystems.xfs_super import Super
from imgtools.errors import DamagedError
from imgtools.model.files import FileKind

KINDS: tuple[FileKind, ...] = ("u", "r", "d", "c", "b", "f", "s", "l")
INDEX_START = 1 << 35  # bytes; what lies beyond is no data
UNUSED = 0xFFFF
BLOCK_MAGIC = {4: b"XD2B", 5: b"XDB3"}
DATA_MAGIC = {4: b"XD2D", 5: b"XDD3"}
HEADER = {4: 16, 5: 64}


class Directories:
    """Reads the entries of directories."""

    def __init__(self, sb: Super, mapper: Mapper) -> None:
        self._super = sb
        self._mapper = mapper

    def entries(self, inode: Inode) -> Iterator[Entry[int]]:
        """All entries with ``.`` and ``..`` where they are stored.  Raises DamagedError."""
        fork = inode.data_fork()
        if fork.form == FORMAT_LOCAL:
            if not 6 <= inode.size <= len(fork.data):
                raise DamagedError(f"XFS directory {inode.number} does not fit its inode")
            yield from self._short(fork.data[: inode.size], inode.number)
            return
        extents = self._mapper.extents(fork, inode.number)
        yield from self._blocks(inode, extents)

    def _kind(self, number: int) -> FileKind:
        return KINDS[number] if number < len(KINDS) else "u"

    def _short(self, data: bytes, owner: int) -> Iterator[Entry[int]]:
        count, wide = data[0], data[1]
        form, width = (">Q", 8) if wide else (">I", 4)
        count = max(count, wide)
        at = 2 + width
        for _ in range(count):
            length = data[at]
            name = data[at + 3 : at + 3 + length]
            at += 3 + length
            kind: FileKind = "u"
            if self._super.ftype:
                kind = self._kind(data[at])
                at += 1
            node = struct.unpack_from(form, data, at)[0]
            at += width
            yield name, kind, node
        if at != len(data):
            raise DamagedError(f"XFS directory {owner} is longer than its entries")

    def _blocks(self, inode: Inode, extents: list[Extent]) -> Iterator[Entry[int]]:
        unit, size = self._super.block_size, self._super.directory_block
        per_block = size // unit
        if any(extent.unwritten for extent in extents):
            raise DamagedError(f"XFS directory {inode.number} was never written")
        if not extents or extents[0].offset:
            raise DamagedError(f"XFS directory {inode.number} has no first block")
        single = extents[-1].offset + extents[-1].length == per_block
        magic = (BLOCK_MAGIC if single else DATA_MAGIC)[self._super.version]
        stream = self._mapper.stream(extents, INDEX_START)
        for first, address in self._starts(extents, per_block, inode.number):
            raw = read_exactly(stream, first * unit, size, "an XFS directory block")
            if raw[:4] != magic:
                raise DamagedError(f"XFS directory {inode.number}: block {first} is no directory's")
            if self._super.version == 5:
                self._check_header(raw, address, inode.number)
            end = self._end(raw, single, inode.number)
            yield from self._data(raw, end, inode.number)

    def _starts(
        self, extents: list[Extent], per_block: int, owner: int
    ) -> Iterator[tuple[int, int]]:
        """First file block and device address of each directory block; all of it is mapped."""
        reached = 0
        for extent in extents:
            if extent.offset * self._super.block_size >= INDEX_START:
                break
            if reached % per_block and extent.offset != reached:
                raise DamagedError(f"XFS directory {owner}: a block is mapped in part")
            base = self._super.block_address(extent.block, extent.length)
            first = -(-extent.offset // per_block) * per_block
            if extent.offset % per_block and extent.offset != reached:
                raise DamagedError(f"XFS directory {owner}: a block is mapped in part")
            reached = extent.offset + extent.length
            for start in range(first, reached, per_block):
                yield start, base + (start - extent.offset) * self._super.block_size
        if reached % per_block:
            raise DamagedError(f"XFS directory {owner}: a block is mapped in part")

    def _check_header(self, raw: bytes, address: int, owner: int) -> None:
        sector, _, uuid, found = struct.unpack_from(">QQ16sQ", raw, 8)
        if sector * 512 != address or uuid != self._super.meta_uuid or found != owner:
            raise DamagedError(f"XFS directory {owner}: a block belongs elsewhere")

    def _end(self, raw: bytes, single: bool, owner: int) -> int:
        if not single:
            return len(raw)
        count = struct.unpack_from(">I", raw, len(raw) - 8)[0]
        end = len(raw) - 8 - 8 * int(count)
        if end < HEADER[self._super.version]:
            raise DamagedError(f"XFS directory {owner}: more hashes than fit")
        return end

    def _data(self, raw: bytes, end: int, owner: int) -> Iterator[Entry[int]]:
        at = HEADER[self._super.version]
        extra = 1 if self._super.ftype else 0
        while at < end:
            if struct.unpack_from(">H", raw, at)[0] == UNUSED:
                length = struct.unpack_from(">H", raw, at + 2)[0]
                entry = None
            else:
                node, size = struct.unpack_from(">QB", raw, at)
                length = -(-(11 + size + extra) // 8) * 8
                kind = self._kind(raw[at + 9 + size]) if extra and at + length <= end else "u"
                entry = raw[at + 9 : at + 9 + size], kind, node
            if length < 8 or length % 8 or at + length > end:
                raise DamagedError(f"XFS directory {owner}: an entry of impossible length")
            if struct.unpack_from(">H", raw, at + length - 2)[0] != at:
                raise DamagedError(f"XFS directory {owner}: an entry's tag is wrong")
            if entry is not None:
                yield entry
            at += length
