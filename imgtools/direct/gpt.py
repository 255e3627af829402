"""Move the backup of a GPT to the end of a disk that gets another size.

The layout is that of UEFI 2.10, section 5.3: the protective MBR in sector 0, the header in sector
1, its entries where it says, and at the end of the disk the entries again and the other header.
Nothing is written here: the sectors are made, for whoever writes the disk.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from imgtools.direct.partitions import PROTECTIVE, Table
from imgtools.direct.streams import BlockStream

_MAX_SECTORS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpt:
    """A valid GPT: the bytes of its header (checksum and all) and entries; LBAs count sectors."""

    sector: int
    header: bytes
    entries: bytes

    @property
    def alternate(self) -> int:
        """Where the backup header is."""
        return int(struct.unpack_from("<Q", self.header, 32)[0])

    @property
    def first_usable(self) -> int:
        """The first LBA that a partition may have."""
        return int(struct.unpack_from("<Q", self.header, 40)[0])

    @property
    def backup_sectors(self) -> int:
        """Sectors at the end of the disk: the entries and the header."""
        return -(-len(self.entries) // self.sector) + 1

    def header_at(self, lba: int, other: int, table: int, last_usable: int) -> bytes:
        """The sector of a header of this table that lies at ``lba``."""
        (size,) = struct.unpack_from("<I", self.header, 12)
        raw = bytearray(self.header[:size])
        struct.pack_into("<Q", raw, 24, lba)
        struct.pack_into("<Q", raw, 32, other)
        struct.pack_into("<Q", raw, 48, last_usable)
        struct.pack_into("<Q", raw, 72, table)
        struct.pack_into("<I", raw, 16, 0)
        struct.pack_into("<I", raw, 16, zlib.crc32(raw))
        return bytes(raw).ljust(self.sector, b"\0")


def read_gpt(stream: BlockStream, sector: int) -> Gpt:
    """The GPT of a disk; `partitions.read_table` has found that it is valid."""
    header = stream.read_at(sector, sector)
    table, count, size = struct.unpack_from("<QII", header, 72)
    return Gpt(sector=sector, header=header, entries=stream.read_at(table * sector, count * size))


def moved(stream: BlockStream, gpt: Gpt, table: Table, size: int) -> list[tuple[int, bytes]]:
    """What to write, as (offset, bytes), for the GPT to fit a disk of ``size`` bytes.

    The backup comes first, the primary header after it.  ``size`` has whole sectors, and room for
    the backup behind the last partition.
    """
    sector = gpt.sector
    last = size // sector - 1
    backup_table = last - gpt.backup_sectors + 1
    (primary_table,) = struct.unpack_from("<Q", gpt.header, 72)
    entries = gpt.entries.ljust((gpt.backup_sectors - 1) * sector, b"\0")
    backup = gpt.header_at(last, 1, backup_table, backup_table - 1)
    writes = [
        (backup_table * sector, entries + backup),
        (sector, gpt.header_at(1, last, primary_table, backup_table - 1)),
    ]
    mbr = stream.read_at(0, sector)
    if (fitting := _protective(mbr, size // sector)) != mbr:
        writes.append((0, fitting))
    if _in_free_space(gpt, table, backup_table):
        # A second backup header would only mislead repair tools.
        writes.append((gpt.alternate * sector, bytes(sector)))
    return writes


def _protective(mbr: bytes, sectors: int) -> bytes:
    """The MBR with a protective partition of the whole disk; a hybrid one as it is."""
    slots = [mbr[446 + 16 * index : 462 + 16 * index] for index in range(4)]
    used = [index for index, slot in enumerate(slots) if slot[4] or any(slot[8:])]
    if len(used) != 1 or slots[used[0]][4] != PROTECTIVE:
        return mbr
    raw = bytearray(mbr)
    at = 446 + 16 * used[0]
    raw[at + 5 : at + 8] = b"\xff\xff\xff"  # an address by cylinders has no room for more
    struct.pack_into("<I", raw, at + 12, min(sectors - 1, _MAX_SECTORS))
    return bytes(raw)


def _in_free_space(gpt: Gpt, table: Table, backup_table: int) -> bool:
    """True if the old backup header stays on the disk, outside of everything."""
    at = gpt.alternate * gpt.sector
    if gpt.alternate >= backup_table:
        return False
    return not any(one.start <= at < one.start + one.size for one in table.entries)
