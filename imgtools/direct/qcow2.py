"""qcow2 over dissect, with the checks and limits that a hostile image needs.

dissect maps guest offsets and decompresses; we give it a header without the parts that name
other files (vet has judged those), tables that are bounded in memory and checked entry by entry,
and our own walk over extended L2 entries (dissect 3.21 counts their bitmaps wrongly).
Format: qemu's docs/interop/qcow2.txt; what is an error is what block/qcow2*.c makes one.
"""

from __future__ import annotations

import io
import struct
import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from imgtools.direct.importing import import_only
from imgtools.direct.streams import Adapter, BlockStream, Extended, Padded
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
MAX_L1_BYTES = 32 << 20  # qemu's QCOW_MAX_L1_SIZE
L2_CACHE_BYTES = 8 << 20
OFFSET_MASK = 0x00FFFFFFFFFFFE00
COMPRESSED = 1 << 62
ZERO = 1


class _L2Table:
    """One L2 table in the form dissect asks for: ``entry`` and ``bitmap`` by index."""

    def __init__(self, words: array[int], check: Callable[[int], None], *, extended: bool) -> None:
        self._entries = words[::2] if extended else words
        self._bitmaps = words[1::2] if extended else None
        self._check = check

    def entry(self, index: int) -> int:
        entry = self._entries[index]
        if entry:
            self._check(entry)
        return entry

    def bitmap(self, index: int) -> int:
        return 0 if self._bitmaps is None else self._bitmaps[index]


class _Tables:
    """The L2 tables of an image; entries are checked as they are used, recent tables kept."""

    def __init__(
        self, file: BlockStream, name: str, cluster_bits: int, version: int, features: int
    ) -> None:
        self._file = file
        self._name = name
        self._cluster_size = 1 << cluster_bits
        self._extended = bool(features & EXTENDED_L2)
        self._zero_allowed = version >= 3 and not self._extended
        self._cache: OrderedDict[int, _L2Table] = OrderedDict()
        self._keep = max(4, L2_CACHE_BYTES >> cluster_bits)

    def __call__(self, offset: int) -> _L2Table:
        table = self._cache.get(offset)
        if table is None:
            table = self._read(offset)
            self._cache[offset] = table
            if len(self._cache) > self._keep:
                self._cache.popitem(last=False)
        return table

    def _read(self, offset: int) -> _L2Table:
        if offset % self._cluster_size or offset + self._cluster_size > self._file.size:
            raise DamagedError(f"{self._name}: an L2 table lies at {offset:#x}, outside the image")
        words = _words(self._file.read_at(offset, self._cluster_size))
        return _L2Table(words, self._check, extended=self._extended)

    def _check(self, entry: int) -> None:
        if entry & COMPRESSED:
            return
        if entry & ZERO:
            if not self._zero_allowed:
                raise DamagedError(f"{self._name}: an L2 entry has a reserved bit set")
            return
        offset = entry & OFFSET_MASK
        if offset % self._cluster_size or offset >= self._file.size:
            raise DamagedError(f"{self._name}: data lies at {offset:#x}, outside the image")


def _words(data: bytes) -> array[int]:
    words = array("Q", data)
    if sys.byteorder == "little":
        words.byteswap()
    return words


def open_qcow2(
    file: BlockStream,
    name: str,
    size: int,
    backing: BlockStream | None,
    *,
    table: tuple[int, int] | None = None,
) -> BlockStream:
    """Return the guest's view of the qcow2 image in ``file``; ``size`` is what vet reported.

    ``backing`` is the opened next layer, or None.  ``table`` is the L1 table of an internal
    snapshot (offset, entries) to read instead of the active one.  Raises DirectUnsupportedError for
    encryption and external data files, UncleanError for the corrupt mark, DamagedError.
    """
    dissect = import_only("dissect.hypervisor.disk.qcow2")
    head = file.read_at(0, 112).ljust(112, b"\0")
    version, cluster_bits, crypt = _at(head, 4, 20, 32)
    l1_size, l1_offset = struct.unpack_from(">IQ", head, 36)
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
    _check_features(name, features, crypt)
    if not 9 <= cluster_bits <= 21 or version not in (2, 3):
        raise DamagedError(f"{name}: bad qcow2 version or cluster size")
    image: Any = dissect.QCow2(io.BytesIO(_plain_header(head, version, 1 << cluster_bits)))
    image.fh = file
    image.data_file = Padded(file, 1 << cluster_bits)
    image.backing_file = Extended(backing, size + (1 << cluster_bits)) if backing else None
    if table is not None:
        l1_offset, l1_size = table
        image.size = size
    if image.size != size:
        raise DamagedError(f"{name}: its virtual size changed while opening")
    image.l1_table = _read_l1(file, name, l1_offset, l1_size, size, image)
    image.l2_table = _Tables(file, name, cluster_bits, version, features)
    stream = dissect.QCow2Stream(image, image.l1_table)
    if features & EXTENDED_L2:
        stream._yield_runs = lambda offset, length: _runs(dissect, image, offset, length)  # noqa: SLF001
    return Adapter(stream, size)


def _at(head: bytes, *offsets: int) -> tuple[int, ...]:
    return tuple(struct.unpack_from(">I", head, offset)[0] for offset in offsets)


def _check_features(name: str, features: int, crypt: int) -> None:
    if crypt:
        raise DirectUnsupportedError(f"{name}: encrypted qcow2")
    if features & DATA_FILE:
        raise DirectUnsupportedError(f"{name}: qcow2 with an external data file")
    if features & CORRUPT:
        raise UncleanError(f"{name}: qcow2 marked as corrupt")
    if features & ~(DIRTY | COMPRESSION | EXTENDED_L2):
        raise DirectUnsupportedError(f"{name}: qcow2 with unknown features ({features:#x})")


def _plain_header(head: bytes, version: int, cluster_size: int) -> bytes:
    """The header without extensions and backing file name (and, for version 2, as long as 3)."""
    plain = bytearray(cluster_size)
    plain[:72] = head[:72]
    plain[8:20] = bytes(12)
    length = struct.unpack_from(">I", head, 100)[0] if version >= 3 else 104
    compression = head[104] if version >= 3 and length > 104 else 0
    if version >= 3:
        plain[72:80] = head[72:80]
    struct.pack_into(">IIB", plain, 96, 4, 112, compression)
    return bytes(plain)


def _read_l1(
    file: BlockStream, name: str, offset: int, count: int, size: int, image: Any
) -> array[int]:
    coverage = 1 << (image.l2_bits + image.cluster_bits)
    needed = -(-size // coverage)
    if count * 8 > MAX_L1_BYTES or needed > count:
        raise DamagedError(f"{name}: its L1 table has a wrong size")
    if offset % image.cluster_size or offset + needed * 8 > file.size:
        raise DamagedError(f"{name}: its L1 table lies outside the image")
    return _words(file.read_at(offset, needed * 8))


def _runs(
    dissect: Any, image: Any, offset: int, length: int
) -> Iterator[tuple[Any, int, int, int]]:
    """Map an extent of an image with extended L2 entries, one subcluster at a time."""
    kinds = dissect.QCow2SubclusterType
    while length > 0:
        l2_offset = image.l1_table[dissect.offset_to_l1_index(image, offset)] & OFFSET_MASK
        inner = offset & (image.subcluster_size - 1)
        count = min(length, image.subcluster_size - inner)
        kind, host = kinds.QCOW2_SUBCLUSTER_UNALLOCATED_PLAIN, 0
        if l2_offset:
            table = image.l2_table(l2_offset)
            index = dissect.offset_to_l2_index(image, offset)
            entry, sub = table.entry(index), dissect.offset_to_sc_index(image, offset)
            kind = dissect.get_subcluster_type(image, entry, table.bitmap(index), sub)
            host = (entry & OFFSET_MASK) + (offset & (image.cluster_size - 1))
            if kind == kinds.QCOW2_SUBCLUSTER_COMPRESSED:
                host = entry & (COMPRESSED - 1)
        yield kind, offset, host, count
        offset += count
        length -= count
