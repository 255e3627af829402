"""The lower half of btrfs: superblock, chunk map, checksummed tree nodes, items of a tree.

Read here and not by dissect.btrfs, which follows any pointer, checks no checksum and does not know
the log tree.  Source: btrfs.readthedocs.io, "On-disk Format"; Linux fs/btrfs.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.importing import import_only
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError

SUPER_OFFSET = 0x10000
SUPER_SIZE = 4096
MAGIC = b"_BHRfS_M"
HEADER = 101
MAX_LEVEL = 7
MAX_CHUNKS = 1 << 20
CHUNK_ITEM = 228
# mixed_backref, default_subvol, mixed_groups, lzo, zstd, big_metadata, extended_iref,
# skinny_metadata, no_holes, metadata_uuid, raid1c34
KNOWN_FEATURES = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x800
RAID0, RAID1, DUP, RAID10, RAID1C3, RAID1C4 = 0x8, 0x10, 0x20, 0x40, 0x200, 0x400
RAID56 = 0x80 | 0x100
WHAT = "the btrfs filesystem"

Item = tuple[int, bytes]  # the key's offset, and the data


@dataclass(frozen=True, slots=True)
class Tree:
    """Where a tree's root is, and the transaction that wrote it."""

    address: int
    level: int
    generation: int


@dataclass(frozen=True, slots=True)
class Super:
    """What of the superblock is needed; ``devid`` and ``generation`` are this device's."""

    fsid: bytes
    generation: int
    root: Tree
    chunks_root: Tree
    devices: int
    sector: int
    node: int
    devid: int
    chunks: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of logical addresses and where its stripes are: (devid, offset)."""

    logical: int
    length: int
    stripe: int
    kind: int
    sub_stripes: int
    stripes: tuple[tuple[int, int], ...]


def _crc32c(data: bytes) -> int:
    # The package, not its module of the same name: it chooses the compiled form where there is one.
    value: int = import_only("dissect.util.hash").crc32c.crc32c(data)
    return value


def read_super(source: BlockStream) -> Super:
    """The first superblock of a device.

    Raises UncleanError for a log tree, DirectUnsupportedError, DamagedError.
    """
    raw = read_exactly(source, SUPER_OFFSET, SUPER_SIZE, WHAT)
    if raw[0x40:0x48] != MAGIC or struct.unpack_from("<Q", raw, 0x30)[0] != SUPER_OFFSET:
        raise DamagedError(f"{WHAT}: no superblock")
    if struct.unpack_from("<H", raw, 0xC4)[0] != 0:
        raise DirectUnsupportedError(f"{WHAT} has checksums other than crc32c")
    if struct.unpack_from("<I", raw)[0] != _crc32c(raw[32:]):
        raise DamagedError(f"{WHAT}: the superblock's checksum is wrong")
    generation, root, chunk_root, log_root = struct.unpack_from("<4Q", raw, 0x48)
    devices, sector, node = struct.unpack_from("<QII", raw, 0x88)
    features = struct.unpack_from("<Q", raw, 0xBC)[0]
    if log_root:
        raise UncleanError(f"{WHAT} has a log tree that needs replay")
    if features & ~KNOWN_FEATURES & ~0x80:
        raise DirectUnsupportedError(f"{WHAT} uses features {features:#x}")
    if sector not in (4096, 8192, 16384, 65536) or node not in (4096, 8192, 16384, 32768, 65536):
        raise DamagedError(f"{WHAT}: bad sector or node size")
    size = struct.unpack_from("<I", raw, 0xA0)[0]
    if size > 2048:
        raise DamagedError(f"{WHAT}: bad chunk array")
    return Super(
        fsid=raw[0x20:0x30],
        generation=generation,
        root=Tree(root, raw[0xC6], generation),
        chunks_root=Tree(chunk_root, raw[0xC7], struct.unpack_from("<Q", raw, 0xA4)[0]),
        devices=devices,
        sector=sector,
        node=node,
        devid=struct.unpack_from("<Q", raw, 0xC9)[0],
        chunks=raw[0x32B : 0x32B + size],
    )


class Volume:
    """Logical addresses and trees of a btrfs on all of its devices."""

    def __init__(self, sources: list[BlockStream]) -> None:
        supers = [read_super(source) for source in sources]
        self.super = supers[0]
        self._devices = {one.devid: s for one, s in zip(supers, sources, strict=True)}
        if len(self._devices) != len(sources):
            raise DirectUnsupportedError(f"{WHAT}: two devices carry one number (clones?)")
        if self.super.devices != len(sources):
            raise DirectUnsupportedError(
                f"{WHAT} lies on {self.super.devices} devices, of which {len(sources)} are here"
            )
        if len({(one.generation, one.fsid) for one in supers}) != 1:
            raise DirectUnsupportedError(f"{WHAT}: its devices are not of one state")
        self._chunks: list[Chunk] = []
        self._starts: list[int] = []
        self._node = lru_cache(512)(self._read_node)
        self._load_chunks()

    # -- addresses --------------------------------------------------------------------------------

    def _load_chunks(self) -> None:
        raw, position = self.super.chunks, 0
        while position + 17 + 48 <= len(raw):
            logical = struct.unpack_from("<Q", raw, position + 9)[0]
            chunk = self._add_chunk(logical, raw[position + 17 :])
            position += 17 + 48 + 32 * len(chunk.stripes)
        self._sort()
        found = list(self.items(self.super.chunks_root, 256, CHUNK_ITEM))
        if len(found) > MAX_CHUNKS:
            raise DamagedError(f"{WHAT}: too many chunks")
        self._chunks.clear()
        for logical, data in found:
            self._add_chunk(logical, data)
        self._sort()
        self._node.cache_clear()

    def _add_chunk(self, logical: int, raw: bytes) -> Chunk:
        length, _, stripe, kind, _, _, _, count, sub = struct.unpack_from("<4Q3I2H", raw)
        if kind & RAID56:
            raise DirectUnsupportedError(f"{WHAT} uses RAID 5 or 6")
        if not count or len(raw) < 48 + 32 * count or not length or not stripe:
            raise DamagedError(f"{WHAT}: a bad chunk")
        if kind & RAID10 and (not sub or count % sub):
            raise DamagedError(f"{WHAT}: a bad RAID 10 chunk")
        stripes = tuple(struct.unpack_from("<QQ", raw, 48 + 32 * i) for i in range(count))
        chunk = Chunk(logical, length, stripe, kind, sub, stripes)
        self._chunks.append(chunk)
        return chunk

    def _sort(self) -> None:
        self._chunks.sort(key=lambda chunk: chunk.logical)
        self._starts = [chunk.logical for chunk in self._chunks]

    def read(self, logical: int, length: int) -> bytes:
        """``length`` bytes at a logical address."""
        pieces = []
        while length > 0:
            device, offset, run = self._map(logical)
            take = min(run, length)
            pieces.append(read_exactly(device, offset, take, WHAT))
            logical += take
            length -= take
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _map(self, logical: int) -> tuple[BlockStream, int, int]:
        index = bisect_right(self._starts, logical) - 1
        chunk = self._chunks[index] if index >= 0 else None
        if chunk is None or logical >= chunk.logical + chunk.length:
            raise DamagedError(f"{WHAT}: an address outside of every chunk")
        inner = logical - chunk.logical
        left = chunk.length - inner
        number = 0
        if chunk.kind & (RAID0 | RAID10):
            stripe, within = divmod(inner, chunk.stripe)
            left = min(left, chunk.stripe - within)
            copies = chunk.sub_stripes if chunk.kind & RAID10 else 1
            stripe, number = divmod(stripe, len(chunk.stripes) // copies)
            number *= copies
            inner = stripe * chunk.stripe + within
        devid, start = chunk.stripes[number]
        device = self._devices.get(devid)
        if device is None:
            raise DirectUnsupportedError(f"{WHAT}: device {devid} is missing")
        return device, start + inner, left

    # -- trees ------------------------------------------------------------------------------------

    def _read_node(self, address: int, level: int, generation: int) -> bytes:
        raw = self.read(address, self.super.node)
        count = struct.unpack_from("<I", raw, 0x60)[0]
        size = 33 if level else 25
        if (
            struct.unpack_from("<I", raw)[0] != _crc32c(raw[32:])
            or struct.unpack_from("<Q", raw, 0x30)[0] != address
            or struct.unpack_from("<Q", raw, 0x50)[0] != generation
            or raw[0x64] != level
            or HEADER + count * size > len(raw)
        ):
            # The kernel would take the other copy of the node, if there is one.
            raise DamagedError(f"{WHAT}: a bad tree node at {address:#x}")
        keys = [struct.unpack_from("<QBQ", raw, HEADER + i * size) for i in range(count)]
        if any(one >= other for one, other in pairwise(keys)):
            raise DamagedError(f"{WHAT}: keys out of order at {address:#x}")
        return raw

    def items(self, tree: Tree, objectid: int, kind: int) -> Iterator[Item]:
        """The items (objectid, kind, *) of a tree, in order."""
        if tree.level > MAX_LEVEL:
            raise DamagedError(f"{WHAT}: a tree of {tree.level} levels")
        raw = self._node(tree.address, tree.level, tree.generation)
        yield from self._items(raw, tree.level, (objectid, kind))

    def _items(self, raw: bytes, level: int, wanted: tuple[int, int]) -> Iterator[Item]:
        step = 33 if level else 25
        count = struct.unpack_from("<I", raw, 0x60)[0]
        index = _first(raw, count, step, wanted, level)
        for position in range(HEADER + index * step, HEADER + count * step, step):
            objectid, kind, offset = struct.unpack_from("<QBQ", raw, position)
            if (objectid, kind) > wanted:
                return
            if level:
                yield from self._items(self._child(raw, position, level - 1), level - 1, wanted)
            elif (objectid, kind) == wanted:
                start, size = struct.unpack_from("<II", raw, position + 17)
                if HEADER + start + size > len(raw):
                    raise DamagedError(f"{WHAT}: an item outside of its node")
                yield offset, raw[HEADER + start : HEADER + start + size]

    def _child(self, raw: bytes, position: int, level: int) -> bytes:
        address, generation = struct.unpack_from("<QQ", raw, position + 17)
        child = self._node(address, level, generation)
        # Rising keys above and this below: no node is met twice, however the pointers are bent.
        if child[HEADER : HEADER + 17] != raw[position : position + 17]:
            raise DamagedError(f"{WHAT}: a tree node that is not its parent's")
        return child


def _first(raw: bytes, count: int, step: int, wanted: tuple[int, int], level: int) -> int:
    """Index of the first entry that may hold ``wanted``: in inner nodes the one before."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        objectid, kind = struct.unpack_from("<QB", raw, HEADER + middle * step)
        if (objectid, kind) < wanted:
            low = middle + 1
        else:
            high = middle
    return max(0, low - 1) if level else low
