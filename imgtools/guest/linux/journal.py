"""Read a systemd journal file, which may be cut off, half written or made by an enemy.

Ours and not journalctl's: a guest's file would else have to be copied out whole and be parsed by
a C program on the host, which need not be there nor know the guest's version of the format.
Source: https://systemd.io/JOURNAL_FILE_FORMAT and systemd's journal-def.h.

Offsets only ever grow along a chain of entry arrays, as in a file that was only appended to;
what goes back is damage, so that no chain can run in a circle.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.guest.linux.journal_compression import CannotDecompressError, decompress

SIGNATURE = b"LPKSHHRH"
COMPACT = 1 << 4
_KNOWN = 0x1F  # xz, lz4, keyed hash, zstd, compact
DATA, ENTRY, ENTRY_ARRAY = 1, 3, 6

MAX_FIELD = 1 << 20
MAX_ITEMS = 4096  # fields of one entry; journald stops at 1024
MAX_ENTRY = 8 << 20  # bytes of all its fields
MAX_HEADER = 1 << 16
CACHE_BLOCK = 1 << 17
CACHE_BLOCKS = 16  # 2 MiB
CACHED_FIELDS = 2048
SMALL_FIELD = 512

Fields = dict[bytes, list[bytes]]


class JournalDamagedError(Exception):
    """A structure of the file makes no sense; what came before it is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One entry: times in microseconds, ``fields`` by name, each with all of its values.

    ``incomplete`` says that a field was left out: too large, or compressed by what this host
    cannot undo.
    """

    realtime: int
    monotonic: int
    boot_id: str
    seqnum: int
    fields: Fields
    incomplete: bool = False

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, None if there is none."""
        values = self.fields.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class _Head:
    realtime: int
    monotonic: int
    boot_id: str
    seqnum: int
    offset: int
    size: int


class JournalFile:
    """A journal file over a seekable stream of ``size`` bytes; holds some 4 MiB of it.

    ``first_realtime`` is the time of its first entry, as the header says.  Raises
    JournalDamagedError when it is no journal, or of a format that nobody knows yet.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._fields: OrderedDict[int, tuple[bytes, bytes] | None] = OrderedDict()
        head = self._read(0, 208)
        if head[:8] != SIGNATURE:
            raise JournalDamagedError("is no journal")
        flags: int = struct.unpack_from("<I", head, 12)[0]
        if flags & ~_KNOWN:
            raise JournalDamagedError(f"needs features that nobody knows ({flags:#x})")
        self._compact = bool(flags & COMPACT)
        self._start: int = struct.unpack_from("<Q", head, 88)[0]
        self._arrays: int = struct.unpack_from("<Q", head, 176)[0]
        self.first_realtime: int = struct.unpack_from("<Q", head, 184)[0]
        if not 208 <= self._start <= MAX_HEADER:
            raise JournalDamagedError("has a header of an impossible size")

    def boots(self) -> Iterator[tuple[str, int]]:
        """Boot id and time of every entry, which is much less to read than the entries."""
        for head in self._heads():
            yield head.boot_id, head.realtime

    def entries(self, *, since: int = 0, until: int = 1 << 64) -> Iterator[JournalEntry]:
        """The entries of a time (microseconds, both ends included), as they were written.

        Raises JournalDamagedError after the last good one where the file is damaged.
        """
        for head in self._heads():
            if since <= head.realtime <= until:
                yield self._entry(head)

    def _heads(self) -> Iterator[_Head]:
        last = 0
        for offset in self._entry_offsets():
            if offset <= last:
                raise JournalDamagedError(f"an entry array goes back at {offset:#x}")
            last = offset
            size = self._object(offset, ENTRY, 64)
            seqnum, realtime, monotonic = struct.unpack("<QQQ", self._read(offset + 16, 24))
            boot_id = self._read(offset + 40, 16).hex()
            yield _Head(realtime, monotonic, boot_id, seqnum, offset, size)

    def _entry_offsets(self) -> Iterator[int]:
        array, last = self._arrays, 0
        width = 4 if self._compact else 8
        while array:
            if array <= last:
                raise JournalDamagedError(f"entry arrays go back at {array:#x}")
            last = array
            size = self._object(array, ENTRY_ARRAY, 24)
            following: int = struct.unpack("<Q", self._read(array + 16, 8))[0]
            at, end = array + 24, array + size
            while at + width <= end:
                piece = self._read(at, min(CACHE_BLOCK, (end - at) // width * width))
                for (offset,) in struct.iter_unpack("<I" if self._compact else "<Q", piece):
                    if not offset:  # the rest is room for entries to come
                        break
                    yield offset
                else:
                    at += len(piece)
                    continue
                return
            array = following

    def _entry(self, head: _Head) -> JournalEntry:
        width = 4 if self._compact else 16
        count = (head.size - 64) // width
        if count > MAX_ITEMS:
            raise JournalDamagedError(f"an entry of {count} fields at {head.offset:#x}")
        items = self._read(head.offset + 64, count * width)
        fields: Fields = {}
        incomplete = False
        room = MAX_ENTRY
        for at in range(0, count * width, width):
            offset: int = struct.unpack_from("<I" if self._compact else "<Q", items, at)[0]
            field = self._field(offset)
            room -= len(field[1]) if field is not None else 0
            if field is None or room < 0:
                incomplete = True
            else:
                fields.setdefault(field[0], []).append(field[1])
        return JournalEntry(
            realtime=head.realtime,
            monotonic=head.monotonic,
            boot_id=head.boot_id,
            seqnum=head.seqnum,
            fields=fields,
            incomplete=incomplete,
        )

    def _field(self, offset: int) -> tuple[bytes, bytes] | None:
        """Name and value of a data object; those that many entries share are remembered."""
        if offset in self._fields:
            self._fields.move_to_end(offset)
            return self._fields[offset]
        field = self._read_field(offset)
        if field is None or len(field[1]) <= SMALL_FIELD:
            self._fields[offset] = field
            if len(self._fields) > CACHED_FIELDS:
                self._fields.popitem(last=False)
        return field

    def _read_field(self, offset: int) -> tuple[bytes, bytes] | None:
        start = 72 if self._compact else 64
        size = self._object(offset, DATA, start)
        flags = self._read(offset + 1, 1)[0]
        if size - start > MAX_FIELD:
            return None
        payload = self._read(offset + start, size - start)
        if flags & 7:
            try:
                payload = decompress(payload, flags & 7, MAX_FIELD)
            except CannotDecompressError:
                return None
        name, separator, value = payload.partition(b"=")
        if not separator or not name:
            raise JournalDamagedError(f"a field without a name at {offset:#x}")
        return name, value

    def _object(self, offset: int, kind: int, least: int) -> int:
        """The size of the object at ``offset``, which must be of this kind."""
        if offset < self._start or offset % 8:
            raise JournalDamagedError(f"an offset of {offset:#x}")
        head = self._read(offset, 16)
        size: int = struct.unpack_from("<Q", head, 8)[0]
        if head[0] != kind or size < least or size > self._size - offset:
            raise JournalDamagedError(f"a broken object at {offset:#x}")
        return size

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._size:
            raise JournalDamagedError(f"ends before {offset + length:#x}")
        first, last = offset // CACHE_BLOCK, (offset + length - 1) // CACHE_BLOCK
        data = b"".join(self._block(index) for index in range(first, last + 1))
        start = offset - first * CACHE_BLOCK
        piece = data[start : start + length]
        if len(piece) != length:
            raise JournalDamagedError(f"ends before {offset + length:#x}")
        return piece

    def _block(self, index: int) -> bytes:
        block = self._blocks.get(index)
        if block is None:
            self._stream.seek(index * CACHE_BLOCK)
            block = self._stream.read(CACHE_BLOCK)
            self._blocks[index] = block
            if len(self._blocks) > CACHE_BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(index)
        return block
