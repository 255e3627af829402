"""The B+tree of an NTFS directory.  Source: ntfs-3g's layout.h, INDEX_ROOT and INDEX_BLOCK."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from imgtools.direct.filesystems.ntfs_volume import Volume
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

INDEX_ROOT, INDEX_ALLOCATION = 0x90, 0xA0
NAME = "$I30"
NODE, LAST = 1, 2
MAX_BLOCK = 65536
MAX_DEPTH = 20


def index_entries(volume: Volume, record: Any) -> Iterator[tuple[int, bytes]]:
    """Every (reference, key) of a directory's index, each block visited once."""
    root = volume.content(record, INDEX_ROOT, NAME)
    data = root.read_at(0, root.size)
    if len(data) < 32:
        raise DamagedError("an NTFS index is cut short")
    size = struct.unpack_from("<I", data, 8)[0]
    if size not in {1 << shift for shift in range(9, 17)}:
        raise DamagedError("an NTFS index has a wrong block size")
    blocks: BlockStream | None = None
    if data[28] & NODE:
        blocks = volume.content(record, INDEX_ALLOCATION, NAME)
    unit = volume.cluster_size if volume.cluster_size <= size else 512
    yield from _Walk(blocks, size, unit).node(data, 16, 0)


class _Walk:
    def __init__(self, blocks: BlockStream | None, size: int, unit: int) -> None:
        self._blocks = blocks
        self._size = size
        self._unit = unit
        self._seen: set[int] = set()

    def node(self, data: bytes, header: int, depth: int) -> Iterator[tuple[int, bytes]]:
        """The entries of one node (its index header at ``header``) and below, in order."""
        first, used = struct.unpack_from("<II", data, header)
        at, end = header + first, header + used
        if end > len(data) or depth > MAX_DEPTH:
            raise DamagedError("an NTFS index is inconsistent")
        while True:
            if at + 16 > end:
                raise DamagedError("an NTFS index lacks its last entry")
            reference, length, key, flags = struct.unpack_from("<QHHH", data, at)
            if length < 16 + key or length % 8 or at + length > end:
                raise DamagedError("an NTFS index entry is inconsistent")
            if flags & NODE:
                below = struct.unpack_from("<Q", data, at + length - 8)[0]
                yield from self.node(self._block(below), 24, depth + 1)
            if flags & LAST:
                return
            yield reference, data[at + 16 : at + 16 + key]
            at += length

    def _block(self, vcn: int) -> bytes:
        if self._blocks is None or vcn in self._seen:
            raise DamagedError("an NTFS index has a loop or lacks its blocks")
        self._seen.add(vcn)
        from dissect.ntfs.util import apply_fixup

        raw = self._blocks.read_at(vcn * self._unit, self._size)
        own = struct.unpack_from("<Q", raw, 16)[0] if len(raw) == self._size else -1
        if raw[:4] != b"INDX" or own != vcn:
            raise DamagedError("an NTFS index block is none")
        fixed: bytes = apply_fixup(raw)
        return fixed
