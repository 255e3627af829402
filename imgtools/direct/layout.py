"""How small a disk may become: where the last thing on it ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from imgtools.direct import md
from imgtools.direct.gpt import Gpt, moved, read_gpt
from imgtools.direct.partitions import EXTENDED_TYPES, Table, read_table
from imgtools.direct.probe import probe
from imgtools.direct.signatures import FOREIGN
from imgtools.direct.streams import BlockStream
from imgtools.errors import DirectError

Kind = Literal["gpt", "msdos", "none", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is on a disk.  ``smallest``: bytes that it needs; None: nothing known is on it.

    ``last`` says what ends there, ``last_number`` is the last partition's.  ``kind`` is
    ``unknown`` for a disk that cannot be read for certain, ``last`` then says why.  ``end_bound``:
    what is on it is found from the end of the disk.
    """

    kind: Kind
    sector: int
    smallest: int | None
    last: str
    last_number: int | None = None
    gpt: Gpt | None = None
    table: Table | None = None
    end_bound: bool = False


def layout_of(stream: BlockStream, sector: int, name: str) -> Layout:
    """Look at the disk ``name``, which has sectors of ``sector`` bytes; a GPT tells better."""
    if stream.read_at(512, 8) != b"EFI PART" and stream.read_at(4096, 8) == b"EFI PART":
        sector = 4096
    try:
        table = read_table(stream, sector, name)
        if table is not None and (table.kind == "gpt" or table.entries):
            return _partitioned(stream, sector, table, name)
        return _bare(stream, sector, name)
    except DirectError as error:
        return Layout(kind="unknown", sector=sector, smallest=stream.size, last=error.message)


def gpt_writes(stream: BlockStream, layout: Layout, size: int) -> list[tuple[int, bytes]]:
    """The sectors that fit the GPT of a disk to its new ``size``; none without a GPT."""
    if layout.gpt is None or layout.table is None:
        return []
    if size == stream.size and layout.gpt.alternate == size // layout.sector - 1:
        return []
    return moved(stream, layout.gpt, layout.table, size)


def _partitioned(stream: BlockStream, sector: int, table: Table, name: str) -> Layout:
    largest = max((one.size for one in table.entries), default=0)
    whole = _raid_of_disks(stream)
    if table.entries and md.covers_whole_disk(stream, largest, name):
        whole = "a member of an MD array"
    gpt = read_gpt(stream, sector) if table.kind == "gpt" else None
    end, number = max(
        ((one.start + one.size, one.number) for one in table.entries), default=(0, None)
    )
    last = f"partition {number}" if number else "the partition table"
    if gpt is not None:
        end = max(end, gpt.first_usable * sector) + gpt.backup_sectors * sector
        last += " and the GPT's backup behind it"
    elif (extended := _extended_end(stream, sector)) > end:
        end, last = extended, "the extended partition"
    return Layout(
        kind="gpt" if gpt is not None else "msdos",
        sector=sector,
        smallest=stream.size if whole else end,
        last=whole or last,
        last_number=number,
        gpt=gpt,
        table=table,
        end_bound=bool(whole),
    )


def _raid_of_disks(stream: BlockStream) -> str:
    """The name of what keeps its own books at the end of a disk, whatever lies before them."""
    for one in FOREIGN:
        if one.offset < 0 and stream.size + one.offset >= 0:
            found = stream.read_at(stream.size + one.offset, len(one.magic))
            if found == one.magic:
                return f"{one.type}, at the end of the disk"
    return ""


def _extended_end(stream: BlockStream, sector: int) -> int:
    """Where an extended partition of an MBR ends, 0 without one: logical ones may be shorter."""
    mbr = stream.read_at(0, 512)
    ends = [0]
    for index in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", mbr, 446 + 16 * index)
        if kind in EXTENDED_TYPES:
            ends.append((start + count) * sector)
    return max(ends)


def _bare(stream: BlockStream, sector: int, name: str) -> Layout:
    found = probe(stream, name)
    if not found.type:
        return Layout(kind="none", sector=sector, smallest=None, last="")
    own = _SIZES.get(found.type)
    size = own(stream) if own else stream.size
    place = md.find_superblock(stream) if found.type == "linux_raid_member" else None
    return Layout(
        kind="none",
        sector=sector,
        smallest=min(stream.size, size),
        last=f"{found.type} on the whole disk",
        end_bound=bool(_raid_of_disks(stream) or (place and place[0] > stream.size // 2)),
    )


def _ext_size(stream: BlockStream) -> int:
    """fs/ext4/ext4.h, struct ext4_super_block: s_blocks_count_lo, s_log_block_size, _hi."""
    block = stream.read_at(1024, 1024)
    low, power = struct.unpack_from("<I16xI", block, 4)
    (high,) = struct.unpack_from("<I", block, 0x150)
    (incompatible,) = struct.unpack_from("<I", block, 0x60)
    return int(((high << 32 if incompatible & 0x80 else 0) | low) << 10 + power)


def _xfs_size(stream: BlockStream) -> int:
    """fs/xfs/libxfs/xfs_format.h, struct xfs_dsb: sb_blocksize, sb_dblocks."""
    block, count = struct.unpack(">IQ", stream.read_at(4, 12))
    return int(block * count)


_SIZES: dict[str, Callable[[BlockStream], int]] = {
    "ext2": _ext_size,
    "ext3": _ext_size,
    "ext4": _ext_size,
    "xfs": _xfs_size,
}
