"""Partition tables, read as the Linux kernel reads them.

dissect.volume's schemes are not exact enough here: GPT sizes are one sector short, checksums are
not verified, logical partitions get other numbers than the kernel's.  The tables are a few
hundred bytes, so they are read directly, by the rules of the kernel's block/partitions/
(msdos.c, efi.c) and, for names and types, of parted, which libguestfs asks.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

MAX_LOGICAL = 128
MAX_GPT_ENTRIES = 4096  # the kernel takes up to 4 MiB of them; none needs more than 128
EXTENDED_TYPES = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
ZERO_GUID = UUID(int=0)
LEGACY_BOOT = 1 << 2  # GPT's own mark; an EFI system partition carries none


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """One partition: ``start`` and ``size`` in bytes; see `model.Partition` for the rest."""

    number: int
    start: int
    size: int
    mbr_id: int | None = None
    gpt_type: str | None = None
    gpt_guid: str | None = None
    label: str = ""
    bootable: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A partition table: ``kind`` is ``gpt`` or ``msdos``."""

    kind: str
    entries: tuple[TableEntry, ...]


class _Raw(NamedTuple):
    """A slot of an MBR or EBR; ``start`` counts sectors, too."""

    boot: int
    kind: int
    start: int
    sectors: int

    @property
    def is_extended(self) -> bool:
        return self.kind in EXTENDED_TYPES


def read_table(stream: BlockStream, sector: int, name: str) -> Table | None:
    """Return the partition table of the device ``name``, None if it has none.

    Raises DamagedError for a table whose reading by the kernel is not certain and
    DirectUnsupportedError for labels other than GPT and MBR.
    """
    first = stream.read_at(0, sector)
    if len(first) < 512:
        return None
    _refuse_other_labels(stream, first, name)
    has_signature = first[510:512] == b"\x55\xaa"
    slots = [_Raw(*_slot(first, index)) for index in range(4)] if has_signature else []
    gpt = _read_gpt(stream, sector, slots, name)
    if gpt is not None:
        return gpt
    if not has_signature or not _is_mbr(first, slots):
        return None
    return Table(kind="msdos", entries=tuple(_read_mbr(stream, sector, slots, name)))


def _slot(sector: bytes, index: int) -> tuple[int, int, int, int]:
    boot, kind, start, count = struct.unpack_from("<B3xB3xII", sector, 446 + 16 * index)
    return boot, kind, start, count


def _refuse_other_labels(stream: BlockStream, first: bytes, name: str) -> None:
    """Stop at the labels that the kernel or parted know and we do not."""
    known = {
        "APM": first[:2] == b"ER" and stream.read_at(512, 2) == b"PM",
        "SGI": first[:4] == b"\x0b\xe5\xa9\x41",
        "Sun": first[508:510] == b"\xda\xbe",
        "AIX": first[:4] == b"\xc9\xc2\xd4\xc1",
        "OSF/BSD": first[64:68] == b"WEV\x82",
        "Amiga": first[:4] == b"RDSK",
        "Karma": first[510:512] == b"\x56\xab",
        "LDM": stream.read_at(6 * 512, 8) == b"PRIVHEAD",
    }
    found = [label for label, match in known.items() if match]
    if not found:  # a BSD label stands in the second sector
        found = ["BSD"] if stream.read_at(512, 4) == b"WEV\x82" else []
    if found:
        raise DirectUnsupportedError(f"{name}: {found[0]} partition table")


# --- MBR ---------------------------------------------------------------------------------------


def _is_mbr(first: bytes, slots: list[_Raw]) -> bool:
    """The kernel's test: a boot sector with code where the slots are is no partition table."""
    if any(slot.boot not in (0, 0x80) for slot in slots):
        return False
    return any(slot.sectors for slot in slots) or not _is_boot_sector(first)


def _is_boot_sector(first: bytes) -> bool:
    return first[0] in (0xEB, 0xE9)


def _read_mbr(stream: BlockStream, sector: int, slots: list[_Raw], name: str) -> list[TableEntry]:
    entries = []
    for number, slot in enumerate(slots, 1):
        if slot.sectors:
            _check_kind(stream, slot, sector, name)
            entries.append(_mbr_entry(number, slot, slot.start, sector))
    extended = [slot for slot in slots if slot.sectors and slot.is_extended]
    if len(extended) > 1:
        raise DamagedError(f"{name}: several extended partitions")
    data = [entry for entry in entries if not entry.extended]
    for slot in extended:
        logical = _read_extended(stream, sector, slot, name)
        entries += logical
        data += logical
    _check_layout(data, stream.size, name)
    return entries


def _mbr_entry(number: int, slot: _Raw, start: int, sector: int) -> TableEntry:
    extended = number < 5 and slot.is_extended
    # The kernel shows no more of an extended partition than a boot loader needs.
    size = min(slot.sectors * sector, max(sector, 1024)) if extended else slot.sectors * sector
    return TableEntry(
        number=number,
        start=start * sector,
        size=size,
        mbr_id=slot.kind,
        bootable=slot.boot == 0x80,
        extended=extended,
    )


def _check_kind(stream: BlockStream, slot: _Raw, sector: int, name: str) -> None:
    """Refuse the types in which the kernel looks for further partitions, and LDM."""
    if slot.kind in (0x63, 0x81, 0xA5, 0xA6, 0xA9, 0xBF, 0x42):
        raise DirectUnsupportedError(f"{name}: MBR partition of type {slot.kind:#04x}")
    if slot.kind == 0:
        raise DamagedError(f"{name}: an MBR partition has no type")
    if slot.kind == 0x82 and stream.read_at(slot.start * sector + 524, 4) == b"\xee\xde\x0d\x60":
        raise DirectUnsupportedError(f"{name}: Solaris label in an MBR partition")


def _read_extended(stream: BlockStream, sector: int, outer: _Raw, name: str) -> list[TableEntry]:
    """Follow the chain of EBRs; logical partitions count from 5."""
    entries: list[TableEntry] = []
    here, here_count = outer.start, outer.sectors
    seen: set[int] = set()
    while len(entries) < MAX_LOGICAL:
        if here in seen:
            raise DamagedError(f"{name}: the chain of logical partitions loops")
        seen.add(here)
        block = stream.read_at(here * sector, sector)
        if block[510:512] != b"\x55\xaa":
            if not entries and not any(block):
                return entries  # an extended partition that never held one
            raise DamagedError(f"{name}: a logical partition's table is damaged")
        slots = [_Raw(*_slot(block, index)) for index in range(4)]
        for index, slot in enumerate(slots):
            if not slot.sectors or slot.is_extended:
                continue
            if index >= 2 and not _plausible(slot, here, here_count, outer):
                continue
            _check_kind(stream, slot, sector, name)
            entries.append(_mbr_entry(5 + len(entries), slot, here + slot.start, sector))
        link = next((slot for slot in slots if slot.sectors and slot.is_extended), None)
        if link is None:
            return entries
        here, here_count = outer.start + link.start, link.sectors
    raise DamagedError(f"{name}: more than {MAX_LOGICAL} logical partitions")


def _plausible(slot: _Raw, here: int, here_count: int, outer: _Raw) -> bool:
    """The third and fourth slot of an EBR may hold garbage; the kernel's test for it."""
    start = here + slot.start
    return (
        slot.start + slot.sectors <= here_count
        and start >= outer.start
        and start + slot.sectors <= outer.start + outer.sectors
    )


def _check_layout(entries: list[TableEntry], disk_size: int, name: str) -> None:
    """Partitions that overlap or leave the disk: the kernel, parted and sgdisk disagree."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.start):
        if entry.start + entry.size > disk_size:
            raise DamagedError(f"{name}: partition {entry.number} lies beyond the end of the disk")
        if entry.start < end:
            raise DamagedError(f"{name}: partition {entry.number} overlaps another")
        end = entry.start + entry.size


# --- GPT ---------------------------------------------------------------------------------------


def _read_gpt(stream: BlockStream, sector: int, slots: list[_Raw], name: str) -> Table | None:
    header = stream.read_at(sector, sector)
    has_header = header[:8] == b"EFI PART"
    protective = any(slot.kind == PROTECTIVE and slot.start == 1 for slot in slots)
    if not protective:
        if has_header or any(slot.kind == PROTECTIVE for slot in slots):
            raise DamagedError(f"{name}: GPT without a proper protective MBR")
        return None
    # The kernel looks at the alternate header only when told to on its command line.
    if not has_header:
        raise DamagedError(f"{name}: protective MBR without a primary GPT header")
    last_lba = stream.size // sector - 1
    _check_header(header, sector, last_lba, name)
    _check_alternate(stream, header, sector, last_lba, name)
    entries = _gpt_entries(stream, header, sector, last_lba, name)
    _check_layout(entries, stream.size, name)
    return Table(kind="gpt", entries=tuple(entries))


def _check_header(header: bytes, sector: int, last_lba: int, name: str, lba: int = 1) -> None:
    """efi.c's is_gpt_valid; raises DamagedError."""
    size, crc = struct.unpack_from("<II", header, 12)
    my_lba, _, first_usable, last_usable = struct.unpack_from("<QQQQ", header, 24)
    count, entry_size = struct.unpack_from("<II", header, 80)
    if not 92 <= size <= sector:
        raise DamagedError(f"{name}: GPT header of a wrong size")
    blank = header[:16] + bytes(4) + header[20:size]
    if zlib.crc32(blank) != crc:
        raise DamagedError(f"{name}: GPT header with a wrong checksum")
    if my_lba != lba or not first_usable <= last_usable <= last_lba:
        raise DamagedError(f"{name}: GPT header does not fit the disk")
    if entry_size != 128 or count > MAX_GPT_ENTRIES:
        raise DamagedError(f"{name}: GPT with unusual entries")


def _check_alternate(
    stream: BlockStream, header: bytes, sector: int, last_lba: int, name: str
) -> None:
    """The kernel does not need the alternate header, but parted fails over a bad one."""
    lba = struct.unpack_from("<Q", header, 32)[0]
    if lba > last_lba:
        raise DamagedError(f"{name}: the alternate GPT lies beyond the end of the disk")
    alternate = stream.read_at(lba * sector, sector)
    if alternate[:8] != b"EFI PART":
        raise DamagedError(f"{name}: the alternate GPT is missing")
    _check_header(alternate, sector, last_lba, name, lba)


def _gpt_entries(
    stream: BlockStream, header: bytes, sector: int, last_lba: int, name: str
) -> list[TableEntry]:
    table_lba, count, entry_size, crc = struct.unpack_from("<QIII", header, 72)
    array = stream.read_at(table_lba * sector, count * entry_size)
    if len(array) != count * entry_size or zlib.crc32(array) != crc:
        raise DamagedError(f"{name}: GPT entries with a wrong checksum")
    entries = []
    for number in range(1, count + 1):
        raw = array[(number - 1) * entry_size : number * entry_size]
        kind = UUID(bytes_le=raw[:16])
        if kind == ZERO_GUID:
            continue
        first, last, flags = struct.unpack_from("<QQQ", raw, 32)
        if not first <= last <= last_lba:
            raise DamagedError(f"{name}: partition {number} lies beyond the end of the disk")
        entries.append(
            TableEntry(
                number=number,
                start=first * sector,
                size=(last - first + 1) * sector,
                gpt_type=str(kind).upper(),
                gpt_guid=str(UUID(bytes_le=raw[16:32])).upper(),
                label=_name(raw[56:128]),
                bootable=bool(flags & LEGACY_BOOT),
            )
        )
    return entries


def _name(raw: bytes) -> str:
    return raw.decode("utf-16-le", errors="replace").split("\0", 1)[0]
