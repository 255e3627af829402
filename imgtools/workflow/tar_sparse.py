"""Files with holes in a tar archive: only their data is stored, as ``tar --sparse`` does it.

Format: GNU tar's manual, "PAX Format, Version 1.0": the member's data begins with a map in decimal
numbers, one to a line (how many runs, then offset and length of each), padded to a block; the real
name and size are pax records.  Where a hole is follows from the content alone, not from the file
system's own map, so that both engines write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from imgtools.model.files import Stat
from imgtools.workflow.tar_records import padding

GRAIN = 65536
"""Bytes: a shorter run of zeros is stored as it is."""
MAX_RUNS = 65536
_ZEROS = bytes(GRAIN)

Run = tuple[int, int]
"""Offset and length of data, in bytes."""


def may_have_holes(found: Stat) -> bool:
    """True for a file that takes less space than its size."""
    return found.size >= GRAIN and found.blocks * 512 < found.size


def data_runs(stream: BinaryIO, size: int) -> list[Run]:
    """Where ``stream`` of ``size`` bytes holds anything but zeros; raises what reading raises."""
    runs: list[Run] = []
    for offset, piece in _pieces(stream, size):
        if piece == _ZEROS[: len(piece)]:
            continue
        if runs and (sum(runs[-1]) == offset or len(runs) >= MAX_RUNS):
            runs[-1] = (runs[-1][0], offset + len(piece) - runs[-1][0])
        else:
            runs.append((offset, len(piece)))
    if not runs or sum(runs[-1]) < size:
        runs.append((size, 0))  # the hole at the end
    return runs


def sparse_map(runs: list[Run]) -> bytes:
    """The map as it is stored, with its padding."""
    lines = [len(runs), *(number for run in runs for number in run)]
    text = b"".join(b"%d\n" % number for number in lines)
    return text + padding(len(text))


def sparse_records(name: bytes, size: int) -> dict[bytes, bytes]:
    """The pax records of such a member: its real name and size."""
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def stored_name(name: bytes) -> bytes:
    """The name that a program sees which does not know such members."""
    folder, _, last = name.rpartition(b"/")
    return folder + b"/GNUSparseFile.0/" + last


def _pieces(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < size:
        piece = b""
        wanted = min(GRAIN, size - offset)
        while len(piece) < wanted and (more := stream.read(wanted - len(piece))):
            piece += more
        if not piece:
            raise EOFError
        yield offset, piece
        offset += len(piece)
