"""Whether the log of an XFS holds anything to replay.

Decided as xlog_find_tail does (Linux fs/xfs/xfs_log_recover.c): the head is where the cycle number
in the first word of each 512-byte block drops, and the log is clean when the last record before
the head is one unmount record.  Whatever else is found counts as unclean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.filesystems.xfs_super import Super
from imgtools.direct.streams import BlockStream, Window
from imgtools.errors import DirectUnsupportedError, UncleanError

SECTOR = 512
HEADER_MAGIC = 0xFEEDBABE
UNMOUNT = 0x20
CYCLES_PER_HEADER = 32768
MAX_RECORD = 256 * 1024
RECORDS = 8  # log buffers that can be written out of order


def require_clean(source: BlockStream, sb: Super) -> None:
    """Raise UncleanError unless the log certainly needs no recovery."""
    if not sb.log_start:
        raise DirectUnsupportedError("XFS with an external log")
    start = sb.block_address(sb.log_start, sb.log_blocks)
    log = _Log(Window(source, start, sb.log_blocks * sb.block_size), sb)
    if not log.is_clean():
        raise UncleanError("the log of this XFS has changes to replay")


class _Log:
    def __init__(self, stream: BlockStream, sb: Super) -> None:
        self._stream = stream
        self._uuid = sb.uuid
        self._count = stream.size // SECTOR

    def _block(self, index: int) -> bytes:
        return read_exactly(self._stream, index * SECTOR, SECTOR, "the XFS log")

    def _cycle(self, index: int) -> int:
        return _cycle_of(self._block(index))

    def is_clean(self) -> bool:
        head = self._head()
        return head is not None and self._in_order(head) and self._is_unmount_before(head)

    def _head(self) -> int | None:
        """The block after the last one written."""
        first, last = self._cycle(0), self._cycle(self._count - 1)
        if first == 0:
            return None
        if last == first:
            return self._count
        if last not in (0, first - 1):
            return None
        return self._first(lambda index: self._cycle(index) != first)

    def _first(self, holds: Callable[[int], bool]) -> int:
        low, high = 0, self._count - 1  # holds(high), not holds(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle, high)
        return high

    def _in_order(self, head: int) -> bool:
        """No block written late lies among the last records."""
        start = max(0, head - RECORDS * MAX_RECORD // SECTOR)
        data = read_exactly(self._stream, start * SECTOR, (head - start) * SECTOR, "the XFS log")
        wanted = self._cycle(0)
        blocks = range(0, len(data), SECTOR)
        return all(_cycle_of(data[at : at + 8]) == wanted for at in blocks)

    def _is_unmount_before(self, head: int) -> bool:
        for back in range(1, min(self._count, 2 * MAX_RECORD // SECTOR) + 1):
            index = (head - back) % self._count
            block = self._block(index)
            if struct.unpack_from(">I", block)[0] == HEADER_MAGIC:
                return self._is_unmount(index, block, head)
        return False

    def _is_unmount(self, index: int, header: bytes, head: int) -> bool:
        version, length = struct.unpack_from(">II", header, 8)
        operations = struct.unpack_from(">I", header, 40)[0]
        size = struct.unpack_from(">I", header, 320)[0]
        if version not in (1, 2) or length > MAX_RECORD or size > MAX_RECORD:
            return False
        if header[304:320] not in (self._uuid, bytes(16)):
            return False
        headers = max(1, -(-size // CYCLES_PER_HEADER)) if version & 2 else 1
        after = (index + headers + -(-length // SECTOR)) % self._count
        if after != head % self._count or operations != 1:
            return False
        return bool(self._block((index + headers) % self._count)[9] & UNMOUNT)


def _cycle_of(block: bytes) -> int:
    first, second = struct.unpack_from(">II", block)
    return int(second if first == HEADER_MAGIC else first)
