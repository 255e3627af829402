"""The forks of an XFS inode: inline, extent list or B+tree, and what they map.

Source: XFS Algorithms & Data Structures, "Data Extents".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imgtools.direct.filesystems.base import Extents, read_exactly
from imgtools.direct.filesystems.xfs_super import Superblock
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

LOCAL, EXTENTS, BTREE = 1, 2, 3
MAX_EXTENTS = 300_000
MAX_TREE_BLOCKS = 20_000
MAX_DEPTH = 9
MAX_SIZE = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Fork:
    """One fork: its format, its bytes in the inode and the number of extents it claims."""

    format: int
    data: bytes
    extents: int


Extent = tuple[int, int, int, bool]  # file block, fs block, blocks, unwritten


def _unpack(data: bytes, count: int) -> Iterator[Extent]:
    for high, low in struct.iter_unpack(">QQ", data[: count * 16]):
        yield (
            (high & ((1 << 63) - 1)) >> 9,
            (high & 0x1FF) << 43 | low >> 21,
            low & 0x1FFFFF,
            bool(high >> 63),
        )


class ForkReader:
    """Reads extents and turns them into streams."""

    def __init__(self, source: BlockStream, superblock: Superblock) -> None:
        self._source = source
        self._super = superblock

    def extents(self, fork: Fork) -> list[Extent]:
        """All extents of a fork, checked for order and number."""
        if fork.extents > MAX_EXTENTS:
            raise DirectUnsupportedError("an XFS file in too many pieces")
        found: list[Extent] = []
        end = 0
        for extent in self._iter(fork):
            start, _, count, _ = extent
            if start < end or not count or len(found) >= fork.extents:
                raise DamagedError("an XFS file's extents are inconsistent")
            end = start + count
            found.append(extent)
        if len(found) != fork.extents:
            raise DamagedError("an XFS file lacks extents")
        return found

    def _iter(self, fork: Fork) -> Iterator[Extent]:
        if fork.format == EXTENTS:
            if fork.extents * 16 > len(fork.data):
                raise DamagedError("an XFS inode has too many extents")
            return _unpack(fork.data, fork.extents)
        if fork.format == BTREE:
            return self._tree(fork.data)
        raise DamagedError("an XFS inode has a fork of a wrong format")

    def _tree(self, root: bytes) -> Iterator[Extent]:
        level, count = struct.unpack_from(">HH", root)
        most = (len(root) - 4) // 16
        if not 0 < level <= MAX_DEPTH or not 0 < count <= most:
            raise DamagedError("an XFS extent tree is inconsistent")
        budget = [MAX_TREE_BLOCKS]
        for pointer in struct.unpack_from(f">{count}Q", root, 4 + most * 8):
            yield from self._node(pointer, level - 1, budget)

    def _node(self, pointer: int, level: int, budget: list[int]) -> Iterator[Extent]:
        budget[0] -= 1
        if budget[0] < 0:
            raise DirectUnsupportedError("an XFS file with too large a map")
        size = self._super.block_size
        at = self._super.block_offset(pointer)
        block = read_exactly(self._source, at, size, "an XFS file's map")
        five = self._super.version == 5
        header = 72 if five else 24
        magic, found, count = struct.unpack_from(">IHH", block)
        most = (size - header) // 16
        if magic != (0x424D4133 if five else 0x424D4150) or found != level or count > most:
            raise DamagedError("an XFS extent tree is inconsistent")
        if level == 0:
            yield from _unpack(block[header:], count)
            return
        for inner in struct.unpack_from(f">{count}Q", block, header + most * 8):
            yield from self._node(inner, level - 1, budget)

    def stream(self, fork: Fork, size: int, *, below: int | None = None) -> Extents:
        """The fork's content of ``size`` bytes; unwritten extents read as zeros.

        With ``below``, only extents that start before that block of the fork.
        """
        block = self._super.block_size
        if size > MAX_SIZE:
            raise DamagedError("an XFS file of an impossible size")
        pieces = []
        for start, fsblock, count, unwritten in self.extents(fork):
            if below is not None and start >= below:
                break
            physical = self._super.block_offset(fsblock)
            self._super.block_offset(fsblock + count - 1)
            if not unwritten:
                pieces.append((start * block, count * block, physical))
        return Extents(self._source, size, pieces)
