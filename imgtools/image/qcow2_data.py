"""Tell whether a qcow2 file is shorter than the clusters its tables point to.

qemu reads whatever lies beyond the end of the file as zeros, so a truncated image opens and the
guest's files are quietly empty.  The L1 table is always checked; the L2 tables only when the
reference counts say that clusters are missing.  Source: docs/interop/qcow2.rst of qemu.
"""

from __future__ import annotations

import sys
from array import array
from itertools import islice
from typing import Protocol

from imgtools.image.header import Problem
from imgtools.image.source import Source

# Bits 9-55 of an L1 entry, and of a standard L2 entry, are the offset.
_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
MAX_L2_BYTES = 16 << 20
# Refcount blocks that are read in search of one with a cluster in use.
MAX_BLOCKS = 16
_ZEROS = bytes(4096)


class Layout(Protocol):
    """The fields of a qcow2 header that say where its tables are."""

    l1_offset: int
    l1_entries: int
    cluster_bits: int
    reftable_offset: int
    reftable_clusters: int
    refcount_order: int

    @property
    def cluster_size(self) -> int:
        """Bytes."""

    @property
    def l2_entry_bits(self) -> int:
        """Log 2 of the bytes that an L2 entry takes."""


def lost_clusters(source: Source, head: Layout) -> list[Problem]:
    """Return the problem of tables or data beyond the end of the file, if there is one."""
    l1 = _table(source.read(head.l1_offset, head.l1_entries * 8, "its L1 table"))
    tables = [entry & _OFFSET_MASK for entry in l1 if entry & _OFFSET_MASK]
    missing = sum(1 for offset in tables if offset >= source.size)
    if missing:
        return [
            _truncated(source, f"{missing} of {len(tables)} L2 tables are beyond the end of it")
        ]
    if _end_by_refcounts(source, head) <= source.size:
        return []
    lost = _lost_data(source, head, tables)
    if not lost:
        return []
    return [_truncated(source, f"at least {lost} clusters of guest data are beyond the end of it")]


def _truncated(source: Source, what: str) -> Problem:
    return Problem(
        code="qcow2.truncated", message=f"truncated: the file has {source.size} bytes and {what}"
    )


def _table(raw: bytes) -> array[int]:
    table = array("Q")
    table.frombytes(raw[: len(raw) // 8 * 8])
    if sys.byteorder == "little":
        table.byteswap()
    return table


def _end_by_refcounts(source: Source, head: Layout) -> int:
    """Where the last cluster in use begins, plus one byte; 0 if there is none."""
    raw = source.peek(head.reftable_offset, head.reftable_clusters * head.cluster_size)
    blocks = _table(raw[: -(-_end_of_data(raw) // 8) * 8])
    present = (index for index in range(len(blocks) - 1, -1, -1) if blocks[index])
    for index in islice(present, MAX_BLOCKS):
        offset = blocks[index] & ~0x1FF
        used = _end_of_data(source.peek(offset, head.cluster_size))
        if used:
            bits = 1 << head.refcount_order
            per_block = head.cluster_size * 8 // bits
            last = index * per_block + (used * 8 - 1) // bits
            return (last << head.cluster_bits) + 1
    return 0


def _end_of_data(raw: bytes) -> int:
    """Where the zeros begin that ``raw`` ends with; ``rstrip`` alone looks at every byte."""
    end = len(raw)
    while end >= len(_ZEROS) and raw.endswith(_ZEROS, 0, end):
        end -= len(_ZEROS)
    return len(raw[:end].rstrip(b"\0"))


def _lost_data(source: Source, head: Layout, tables: list[int]) -> int:
    """How many clusters of the last L2 tables (bounded) lie beyond the end of the file."""
    step = 1 << (head.l2_entry_bits - 3)
    bound = max(1, MAX_L2_BYTES >> head.cluster_bits)
    lost = 0
    for offset in sorted(tables)[-bound:]:
        entries = _table(source.peek(offset, head.cluster_size))[::step]
        lost += sum(1 for entry in entries if _last_byte(entry, head) >= source.size)
    return lost


def _last_byte(entry: int, head: Layout) -> int:
    """A byte that the cluster needs: its first, or one of its last sector if compressed."""
    if not entry & _COMPRESSED:
        return entry & _OFFSET_MASK
    width = 62 - (head.cluster_bits - 8)
    offset = entry & ((1 << width) - 1)
    more_sectors = (entry & (_COMPRESSED - 1)) >> width
    return offset if not more_sectors else (offset & ~511) + more_sectors * 512
