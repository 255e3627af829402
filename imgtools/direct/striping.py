"""Data laid out over several streams in chunks, as the kernel's dm-stripe and MD do it."""

from __future__ import annotations

from collections.abc import Sequence

from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError


class Striped(BlockStream):
    """Chunks of ``chunk`` bytes dealt out in turn to ``legs`` of equal size (RAID 0)."""

    def __init__(self, legs: Sequence[BlockStream], chunk: int) -> None:
        leg_size = legs[0].size
        if chunk <= 0 or any(leg.size != leg_size for leg in legs) or leg_size % chunk:
            raise DamagedError("striped volume with uneven stripes")
        self._legs = legs
        self._chunk = chunk
        super().__init__(leg_size * len(legs))

    def _read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            index, inner = divmod(offset, self._chunk)
            row, leg = divmod(index, len(self._legs))
            count = min(length, self._chunk - inner)
            pieces.append(self._legs[leg].read_at(row * self._chunk + inner, count))
            offset += count
            length -= count
        return b"".join(pieces)
