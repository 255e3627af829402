"""Block streams: what the container formats, partitions and volume layers are made of.

Every layer is a `BlockStream`: a seekable read-only stream of a known size with one primitive,
``read_at``.  A read past the end is short, as on a block device; a read inside that its source
cannot fill is damage, never silently zeros.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from imgtools.direct.guard import translate
from imgtools.errors import DamagedError, ImageUnreadableError

CACHE_BLOCK = 1 << 16
CACHE_BLOCKS = 256  # 16 MiB; several disks share them


class BlockStream(io.RawIOBase, BinaryIO):
    """A read-only stream of ``size`` bytes.  Subclasses implement ``_read_at``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._position = 0

    def _read_at(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes from ``offset``; fewer than ``length`` only at the end."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        data = self._read_at(offset, length)
        if len(data) != length:
            raise DamagedError(f"a volume ends early: {len(data)} of {length} bytes at {offset}")
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self.size
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        self._position = offset
        return offset

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self.size - self._position if size is None or size < 0 else size
        data = self.read_at(self._position, wanted)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class FileStream(BlockStream):
    """A host file; its size is rounded up to whole sectors, as qemu does for raw files.

    Raises ImageUnreadableError when it cannot be opened or read.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.file_size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise ImageUnreadableError(f"{path}: {error.strerror}") from error
        super().__init__(self.file_size if size is None else size)

    def _read_at(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length and (
                more := os.pread(self._fd, length - len(data), offset + len(data))
            ):
                data += more
        except OSError as error:
            raise ImageUnreadableError(f"{self.path}: {error.strerror}") from error
        if len(data) < length and offset + length <= -(-self.file_size // 512) * 512:
            data += bytes(length - len(data))
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


class Adapter(BlockStream):
    """A foreign seekable stream (a parser's) of a known size.

    With ``piece``, no single read crosses a multiple of it.
    """

    def __init__(self, stream: Any, size: int, *, piece: int = 1 << 62) -> None:
        super().__init__(size)
        self._stream = stream
        self._piece = piece

    def _read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            count = min(length, self._piece - offset % self._piece)
            self._stream.seek(offset)
            data: bytes = self._stream.read(count)
            if len(data) != count:
                raise DamagedError(f"{len(data)} of {count} bytes are there at {offset:#x}")
            pieces.append(data)
            offset += count
            length -= count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Extended(BlockStream):
    """A stream that goes on with zeros after its end (a backing file under a larger overlay)."""

    def __init__(self, source: BlockStream, size: int) -> None:
        super().__init__(size)
        self._source = source

    def _read_at(self, offset: int, length: int) -> bytes:
        data = self._source.read_at(offset, length)
        return data + bytes(length - len(data))


class Padded(Extended):
    """A file with zeros up to the next multiple of ``unit``, as qemu reads a last cluster."""

    def __init__(self, source: BlockStream, unit: int) -> None:
        super().__init__(source, -(-source.size // unit) * unit)


class Zeros(BlockStream):
    """Nothing but zero bytes."""

    def _read_at(self, offset: int, length: int) -> bytes:  # noqa: ARG002
        return bytes(length)


class Window(BlockStream):
    """``size`` bytes of another stream from ``start``; a window in a window costs nothing."""

    def __init__(self, source: BlockStream, start: int, size: int) -> None:
        super().__init__(size)
        self.source: BlockStream = source.source if isinstance(source, Window) else source
        self.start: int = start + (source.start if isinstance(source, Window) else 0)

    def _read_at(self, offset: int, length: int) -> bytes:
        return self.source.read_at(self.start + offset, length)


class Joined(BlockStream):
    """Several streams one after the other."""

    def __init__(self, parts: Sequence[BlockStream]) -> None:
        self._parts = parts
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + part.size)
        super().__init__(self._starts[-1])

    def _read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        index = bisect_right(self._starts, offset) - 1
        while length > 0:
            inner = offset - self._starts[index]
            piece = self._parts[index].read_at(inner, length)
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
            index += 1
        return b"".join(pieces)


class Cached(BlockStream):
    """A stream with a cache of recently read blocks, for parsers that read crumbs.

    Whatever the source raises comes out as an error of ours about ``what``.
    """

    def __init__(self, source: BlockStream, what: str, blocks: int = CACHE_BLOCKS) -> None:
        super().__init__(source.size)
        self._source = source
        self._what = what
        self._keep = blocks
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def _fetch(self, offset: int, length: int) -> bytes:
        try:
            return self._source.read_at(offset, length)
        except Exception as error:
            raise translate(error, self._what) from error

    def _block(self, index: int) -> bytes:
        block = self._blocks.get(index)
        if block is None:
            block = self._fetch(index * CACHE_BLOCK, CACHE_BLOCK)
            self._blocks[index] = block
            if len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(index)
        return block

    def _read_at(self, offset: int, length: int) -> bytes:
        first, inner = divmod(offset, CACHE_BLOCK)
        if inner + length <= CACHE_BLOCK:
            return self._block(first)[inner : inner + length]
        if length > 4 * CACHE_BLOCK:  # file content: do not push the metadata out
            return self._fetch(offset, length)
        last = (offset + length - 1) // CACHE_BLOCK
        data = b"".join(self._block(index) for index in range(first, last + 1))
        return data[inner : inner + length]

    def close(self) -> None:
        self._blocks.clear()
        self._source.close()
        super().close()
