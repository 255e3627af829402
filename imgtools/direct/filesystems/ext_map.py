"""Which blocks an ext file lies on: extent trees and block maps.

Source: Documentation/filesystems/ext4/{ifork,blockmap}.rst.  An unwritten extent reads as zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imgtools.direct.filesystems.base import Extents, read_exactly
from imgtools.direct.filesystems.ext_super import Superblock
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

MAX_EXTENTS = 300_000
MAX_MAP_BLOCKS = 20_000
MAX_DEPTH = 5
MAX_LOGICAL = 1 << 32
UNWRITTEN_LIMIT = 32768
BLOCK_MAP_SLOTS = 12

Run = tuple[int, int, int]  # logical block, blocks, physical block


class Mapper:
    """Reads one file's map within its budget of map blocks and extents."""

    def __init__(self, source: BlockStream, superblock: Superblock) -> None:
        self._source = source
        self._super = superblock
        self._budget = MAX_MAP_BLOCKS

    def content(self, i_block: bytes, size: int, *, extents: bool) -> Extents:
        """The file of ``size`` bytes whose inode holds ``i_block``."""
        if size > MAX_LOGICAL * self._super.block_size:
            raise DamagedError(f"a file of {size} bytes on ext")
        runs = self._tree(i_block, None) if extents else self._block_map(i_block, size)
        return Extents(self._source, size, self._collect(runs))

    def _collect(self, runs: Iterator[Run]) -> list[tuple[int, int, int]]:
        block = self._super.block_size
        result: list[tuple[int, int, int]] = []
        end = last = 0
        for logical, count, physical in runs:
            if logical < end or not 0 < physical <= self._super.blocks - count:
                raise DamagedError("an ext file's extents overlap or leave the filesystem")
            end = logical + count
            if result and logical * block == sum(result[-1][:2]) and physical == last:
                start, length, at = result[-1]
                result[-1] = (start, length + count * block, at)
            else:
                result.append((logical * block, count * block, physical * block))
            last = physical + count
            if len(result) > MAX_EXTENTS:
                raise DirectUnsupportedError("an ext file in too many pieces")
        return result

    def _read(self, block: int) -> bytes:
        self._budget -= 1
        if self._budget < 0:
            raise DirectUnsupportedError("an ext file with too large a map")
        if not 0 < block < self._super.blocks:
            raise DamagedError("an ext file's map leaves the filesystem")
        size = self._super.block_size
        return read_exactly(self._source, block * size, size, "an ext file's map")

    def _tree(self, node: bytes, depth: int | None) -> Iterator[Run]:
        magic, entries, most, level = struct.unpack_from("<HHHH", node)
        fits = most <= (len(node) - 12) // 12 and entries <= most
        if magic != 0xF30A or not fits or level > MAX_DEPTH or depth not in (None, level):
            raise DamagedError("an ext extent tree is inconsistent")
        for at in range(12, 12 + entries * 12, 12):
            if level:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._tree(self._read(low | high << 32), level - 1)
                continue
            logical, count, high, low = struct.unpack_from("<IHHI", node, at)
            if count == 0:
                raise DamagedError("an ext extent of no blocks")
            if count <= UNWRITTEN_LIMIT:
                yield logical, count, low | high << 32

    def _block_map(self, i_block: bytes, size: int) -> Iterator[Run]:
        slots = struct.unpack("<15I", i_block)
        blocks = -(-size // self._super.block_size)
        for logical in range(min(BLOCK_MAP_SLOTS, blocks)):
            if slots[logical]:
                yield logical, 1, slots[logical]
        per_block = self._super.block_size // 4
        start = BLOCK_MAP_SLOTS
        for level in (1, 2, 3):
            if start < blocks and slots[11 + level]:
                yield from self._indirect(slots[11 + level], start, level, blocks)
            start += per_block**level

    def _indirect(self, block: int, start: int, level: int, end: int) -> Iterator[Run]:
        per_block = self._super.block_size // 4
        step = per_block ** (level - 1)
        for pointer in struct.unpack(f"<{per_block}I", self._read(block)):
            if start >= end:
                return
            if pointer and level == 1:
                yield start, 1, pointer
            elif pointer:
                yield from self._indirect(pointer, start, level - 1, end)
            start += step
