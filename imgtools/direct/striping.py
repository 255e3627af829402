"""Data laid out over several streams in chunks, as dm-stripe and MD lay it out.

Sources: the kernel's drivers/md/{dm-stripe,raid0,raid5,raid10}.c.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError


class Chunked(BlockStream):
    """A stream made of chunks; subclasses read within one chunk."""

    def __init__(self, size: int, chunk: int) -> None:
        super().__init__(size)
        self._chunk = chunk

    def _read_chunk(self, index: int, inner: int, length: int) -> bytes:
        raise NotImplementedError

    def _read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            index, inner = divmod(offset, self._chunk)
            count = min(length, self._chunk - inner)
            pieces.append(self._read_chunk(index, inner, count))
            offset += count
            length -= count
        return b"".join(pieces)


class Striped(Chunked):
    """Chunks dealt out in turn to legs of equal size: dm-stripe, RAID 0."""

    def __init__(self, legs: Sequence[BlockStream], chunk: int) -> None:
        leg_size = legs[0].size
        if chunk <= 0 or any(leg.size != leg_size for leg in legs) or leg_size % chunk:
            raise DamagedError("a striped volume with uneven stripes")
        self._legs = legs
        super().__init__(leg_size * len(legs), chunk)

    def _read_chunk(self, index: int, inner: int, length: int) -> bytes:
        row, leg = divmod(index, len(self._legs))
        return self._legs[leg].read_at(row * self._chunk + inner, length)


class _Zone(NamedTuple):
    start: int  # in the array
    row: int  # in chunks, on each of its legs
    legs: Sequence[BlockStream]


class Zones(Chunked):
    """RAID 0 over legs of uneven size: when the small ones are full, the larger go on.

    ``original``: the first kernels' layout, where the leg follows from the chunk's number in
    the whole array; else from that in its zone (drivers/md/raid0.c, raid0_map_sector).
    """

    def __init__(self, legs: Sequence[BlockStream], chunk: int, *, original: bool) -> None:
        self._original = original
        self._zones: list[_Zone] = []
        start = row = 0
        for size in sorted({leg.size for leg in legs}):
            users = [leg for leg in legs if leg.size >= size]
            self._zones.append(_Zone(start, row, users))
            start += (size // chunk - row) * chunk * len(users)
            row = size // chunk
        self._starts = [zone.start for zone in self._zones]
        super().__init__(start, chunk)

    def _read_chunk(self, index: int, inner: int, length: int) -> bytes:
        zone = self._zones[bisect_right(self._starts, index * self._chunk) - 1]
        in_zone = index - zone.start // self._chunk
        leg = (index if self._original else in_zone) % len(zone.legs)
        row = zone.row + in_zone // len(zone.legs)
        return zone.legs[leg].read_at(row * self._chunk + inner, length)


class Raid10(Chunked):
    """RAID 10 in near, far and offset layout; any copy that is there will do."""

    def __init__(
        self, legs: Mapping[int, BlockStream], disks: int, chunk: int, layout: int, size: int
    ) -> None:
        self._legs = legs
        self._disks = disks
        self._near = layout & 0xFF
        self._far = layout >> 8 & 0xFF
        self._offset = bool(layout >> 16 & 1)
        if layout >> 17 or not self._near or not self._far or self._near * self._far > disks:
            raise DirectUnsupportedError(f"RAID 10 of layout {layout:#x}")
        rows = size // chunk // self._far  # of one far copy
        self._stride = chunk if self._offset else rows * chunk
        super().__init__(rows * disks // self._near * chunk, chunk)

    def _read_chunk(self, index: int, inner: int, length: int) -> bytes:
        row, first = divmod(index * self._near, self._disks)
        if self._offset:
            row *= self._far
        for near in range(self._near):
            carried, leg = divmod(first + near, self._disks)
            at = (row + carried) * self._chunk + inner
            for far in range(self._far):
                found = self._legs.get((leg + far * self._near) % self._disks)
                if found is not None:
                    return found.read_at(at + far * self._stride, length)
        raise DirectUnsupportedError("RAID 10 that lacks all copies of a chunk")


class Parity(Chunked):
    """RAID 4, 5 and 6.  One missing disk is worked out from the others and P."""

    def __init__(
        self,
        legs: Mapping[int, BlockStream],
        disks: int,
        chunk: int,
        level: int,
        layout: int,
        size: int,
    ) -> None:
        self._legs = legs
        self._disks = disks
        self._level = level
        self._layout = layout
        self._data = disks - (2 if level == 6 else 1)
        if self._data < 1 or disks - len(legs) > 1:
            raise DirectUnsupportedError(f"RAID {level} with {len(legs)} of {disks} disks")
        if level in (5, 6) and layout not in range(6):
            raise DirectUnsupportedError(f"RAID {level} of layout {layout}")
        super().__init__(size * self._data, chunk)

    def _place(self, index: int) -> tuple[int, int, int]:
        """Return (row, disk of the chunk, disk of Q or -1)."""
        row, data = divmod(index, self._data)
        if self._level == 4:
            return row, data, -1
        parity, q_disk = self._parity(row)
        if self._layout in (2, 3):  # symmetric: data goes on after the parity
            last = parity if q_disk < 0 else q_disk
            return row, (last + 1 + data) % self._disks, q_disk
        data_disks = [disk for disk in range(self._disks) if disk not in (parity, q_disk)]
        return row, data_disks[data], q_disk

    def _parity(self, row: int) -> tuple[int, int]:
        """The disks of P and Q in a row, by layout (raid5_compute_sector)."""
        turn = row % self._disks
        last = self._disks - 1
        six = self._level == 6
        if self._layout == 4:
            return 0, 1 if six else -1
        if self._layout == 5:
            return self._data, self._data + 1 if six else -1
        parity = last - turn if self._layout in (0, 2) else turn
        return parity, (parity + 1) % self._disks if six else -1

    def _read_chunk(self, index: int, inner: int, length: int) -> bytes:
        row, disk, q_disk = self._place(index)
        at = row * self._chunk + inner
        if disk in self._legs:
            return self._legs[disk].read_at(at, length)
        total = 0
        for other in range(self._disks):
            if other not in (disk, q_disk):
                total ^= int.from_bytes(self._legs[other].read_at(at, length), "little")
        return total.to_bytes(length, "little")
