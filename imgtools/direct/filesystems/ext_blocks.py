"""Where the blocks of an ext file are: extent trees and indirect blocks, checked on the way.

Format: Linux kernel, Documentation/filesystems/ext4/ifork.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.errors import DamagedError

_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_MAX_RUNS = 4_000_000
_UNWRITTEN = 0x8000


@dataclass(slots=True)
class Run:
    """``count`` blocks from ``start``; a hole (or unwritten blocks) if ``start`` is None."""

    start: int | None
    count: int


class Mapping:
    """Maps one file's blocks of ``block_size`` bytes in a filesystem of ``block_count`` blocks."""

    def __init__(self, stream: BinaryIO, block_size: int, block_count: int) -> None:
        self._stream = stream
        self._block_size = block_size
        self._block_count = block_count
        self._runs: list[Run] = []
        self._done = 0

    def extents(self, root: bytes, wanted: int) -> list[Run]:
        """The runs of a file of ``wanted`` blocks from the extent tree in ``i_block``."""
        self._extent_node(root, None)
        return self._finish(wanted)

    def indirect(self, root: bytes, wanted: int) -> list[Run]:
        """The runs of a file of ``wanted`` blocks from the block map in ``i_block``."""
        pointers = struct.unpack_from("<15I", root)
        for pointer in pointers[:12]:
            if self._done < wanted:
                self._append(pointer or None, 1)
        for level in (1, 2, 3):
            self._indirect_node(pointers[11 + level], level, wanted)
        if self._done < wanted:
            raise DamagedError("ext: a file larger than its block map can hold")
        return self._finish(wanted)

    def _append(self, start: int | None, count: int) -> None:
        if start is not None and not 0 < start <= self._block_count - count:
            raise DamagedError(f"ext: blocks {start}+{count} lie outside of the filesystem")
        self._done += count
        last = self._runs[-1] if self._runs else None
        if last is not None and (
            last.start + last.count == start if last.start is not None else start is None
        ):
            last.count += count
            return
        self._runs.append(Run(start, count))
        if len(self._runs) > _MAX_RUNS:
            raise DamagedError(f"ext: a file in more than {_MAX_RUNS} pieces")

    def _finish(self, wanted: int) -> list[Run]:
        if self._done < wanted:
            self._append(None, wanted - self._done)
        return self._runs

    # -- extents ----------------------------------------------------------------------------------

    def _extent_node(self, node: bytes, expected_depth: int | None) -> None:
        magic, count, maximum, depth = struct.unpack_from("<HHHH", node)
        if (
            magic != _EXTENT_MAGIC
            or depth > _MAX_DEPTH
            or (expected_depth is not None and depth != expected_depth)
            or count > maximum
            or 12 + 12 * count > len(node)
        ):
            raise DamagedError("ext: a bad extent header")
        for index in range(count):
            if depth:
                block, low, high = struct.unpack_from("<IIH", node, 12 + 12 * index)
                self._extent_child(block, low | high << 32, depth - 1)
            else:
                self._extent(*struct.unpack_from("<IHHI", node, 12 + 12 * index))

    def _extent_child(self, block: int, where: int, depth: int) -> None:
        if block < self._done and self._runs:
            raise DamagedError("ext: extents out of order")
        self._extent_node(self._block(where), depth)

    def _extent(self, block: int, length: int, high: int, low: int) -> None:
        if block < self._done:
            raise DamagedError("ext: extents overlap")
        if block > self._done:
            self._append(None, block - self._done)
        unwritten = length > _UNWRITTEN
        count = length - _UNWRITTEN if unwritten else length
        if count == 0:
            raise DamagedError("ext: an empty extent")
        start = low | high << 32
        if unwritten:
            start = self._checked(start, count)
            self._append(None, count)
        else:
            self._append(start, count)

    def _checked(self, start: int, count: int) -> int:
        if not 0 < start <= self._block_count - count:
            raise DamagedError(f"ext: blocks {start}+{count} lie outside of the filesystem")
        return start

    # -- indirect blocks --------------------------------------------------------------------------

    def _indirect_node(self, pointer: int, level: int, wanted: int) -> None:
        if self._done >= wanted:
            return
        per_block = self._block_size // 4
        span = per_block**level
        if pointer == 0:
            self._append(None, min(span, wanted - self._done))
            return
        for child in struct.unpack(f"<{per_block}I", self._block(pointer)):
            if self._done >= wanted:
                return
            if level == 1:
                self._append(child or None, 1)
            else:
                self._indirect_node(child, level - 1, wanted)

    def _block(self, number: int) -> bytes:
        if not 0 < number < self._block_count:
            raise DamagedError(f"ext: block {number} lies outside of the filesystem")
        self._stream.seek(number * self._block_size)
        data = self._stream.read(self._block_size)
        if len(data) != self._block_size:
            raise DamagedError("ext: the filesystem ends early")
        return data
