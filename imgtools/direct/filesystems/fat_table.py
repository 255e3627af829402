"""The file allocation table of FAT12, FAT16, FAT32 and exFAT: chains of clusters.

Source: Microsoft's FAT and exFAT specifications.  A chain never gives more clusters than the
volume has, so a loop ends.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator

from imgtools.direct.filesystems.base import Extents, read_exactly
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

BLOCK = 3 << 14  # holds whole entries of 12, 16 and 32 bits
CACHED_BLOCKS = 128
MAX_COUNTED = 1 << 25
MAX_CLUSTERS = 1 << 22  # of one file: 128 GiB at 32 KiB each
FIRST = 2


class Table:
    """A FAT of ``bits`` per entry (12, 16, 28 or 32) at ``start`` for clusters 2 … ``end`` - 1."""

    def __init__(self, source: BlockStream, start: int, bits: int, end: int) -> None:
        self._source = source
        self._start = start
        self._bits = bits
        self.end = end
        self._bad = (1 << bits) - 9
        self._blocks: OrderedDict[int, tuple[int, ...]] = OrderedDict()
        self._per_block = BLOCK * 8 // (12 if bits == 12 else 16 if bits == 16 else 32)

    def _block(self, index: int) -> tuple[int, ...]:
        found = self._blocks.get(index)
        if found is None:
            width = 3 if self._bits == 12 else 2 if self._bits == 16 else 4
            entries = min(self._per_block, self.end - index * self._per_block)
            size = -(-entries * width // 2) if width == 3 else entries * width
            at = self._start + index * BLOCK
            found = self._decode(read_exactly(self._source, at, size, "the FAT"))
            self._blocks[index] = found
            if len(self._blocks) > CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return found

    def _decode(self, data: bytes) -> tuple[int, ...]:
        if self._bits == 16:
            return struct.unpack(f"<{len(data) // 2}H", data)
        if self._bits == 12:
            data += bytes(-len(data) % 3)
            entries: list[int] = []
            for low, middle, high in zip(data[::3], data[1::3], data[2::3], strict=True):
                entries += (low | (middle & 15) << 8, middle >> 4 | high << 4)
            return tuple(entries)
        words = struct.unpack(f"<{len(data) // 4}I", data)
        return words if self._bits == 32 else tuple(word & 0xFFFFFFF for word in words)

    def _next(self, cluster: int) -> int:
        index, inner = divmod(cluster, self._per_block)
        return self._block(index)[inner]

    def check(self, cluster: int) -> int:
        """``cluster`` if the volume has it, else DamagedError."""
        if not FIRST <= cluster < self.end:
            raise DamagedError("a FAT cluster number lies outside the volume")
        return cluster

    def chain(self, cluster: int, most: int | None = None) -> Iterator[int]:
        """The clusters from ``cluster`` on, ``most`` of them or to the end of the chain."""
        limit = self.end if most is None else most
        if limit > MAX_CLUSTERS and most is not None:
            raise DirectUnsupportedError("a FAT file of too many clusters")
        seen = 0
        while seen < limit:
            yield self.check(cluster)
            seen += 1
            if seen == most:
                return
            following = self._next(cluster)
            if following > self._bad:  # an end of chain
                if most is not None:
                    raise DamagedError("a FAT file's chain is shorter than the file")
                return
            cluster = following
        if most is None:
            raise DamagedError("a FAT chain is a loop")

    def free(self) -> int:
        """The number of free clusters."""
        if self.end > MAX_COUNTED:
            raise DirectUnsupportedError("a FAT with too many clusters to count")
        total = 0
        for index in range(-(-self.end // self._per_block)):
            block = self._block(index)
            count = min(len(block), self.end - index * self._per_block)
            entries = block[:count]
            total += entries[FIRST:].count(0) if index == 0 else entries.count(0)
        return total


def stream(
    source: BlockStream, clusters: Iterator[int], size: int, cluster_size: int, heap: int
) -> Extents:
    """A file of ``size`` bytes on ``clusters``, the first of which (2) starts at ``heap``."""
    extents: list[tuple[int, int, int]] = []
    position = 0
    for cluster in clusters:
        physical = heap + (cluster - FIRST) * cluster_size
        if extents and extents[-1][2] + extents[-1][1] == physical:
            start, length, at = extents[-1]
            extents[-1] = (start, length + cluster_size, at)
        else:
            extents.append((position, cluster_size, physical))
        position += cluster_size
    return Extents(source, size, extents)


def name_from_utf16(data: bytes) -> bytes:
    """A name as the kernel's utf8 option shows it; lone surrogates it would drop are refused."""
    try:
        return data.decode("utf-16-le").encode()
    except UnicodeDecodeError:
        raise DirectUnsupportedError("a name on FAT with a lone surrogate") from None
