"""Translate every foreign exception of the parsers at this door.

A parser that meets damage may raise anything: ``struct.error``, ``EOFError``, ``IndexError``,
``RecursionError``, ``MemoryError``, its own classes.  To the rest of imgtools they all mean "the
direct engine is not certain".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    ImageUnreadableError,
    ImgtoolsError,
    MissingBindingError,
)

DIRECT_HINT = "pip install 'imgtools[direct]'"


def translate(error: Exception, what: str) -> ImgtoolsError:
    """Return the error of ours that ``error``, met while reading ``what``, stands for."""
    if isinstance(error, ImgtoolsError):
        return error
    if isinstance(error, ImportError):
        return MissingBindingError(
            f"{what}: the direct engine lacks a library: {error}", hint=DIRECT_HINT
        )
    if isinstance(error, NotImplementedError):
        return DirectUnsupportedError(f"{what}: {_text(error)}")
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return ImageUnreadableError(f"{error.filename}: {error.strerror}")
    return DamagedError(f"{what}: {_text(error)}")


def _text(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def guard(what: str) -> Iterator[None]:
    """Let only errors of ours out of the block; ``what`` names what is being read.

    Also usable as a decorator, where ``what`` is known beforehand.  A generator must be guarded
    inside, around its own steps.
    """
    try:
        yield
    except ImgtoolsError:
        raise
    except Exception as error:
        raise translate(error, what) from error


class GuardedStream(io.RawIOBase, BinaryIO):
    """A seekable read-only stream of ``size`` bytes whose errors are ours.

    A stream that ends before ``size`` raises DamagedError instead of returning too little.
    """

    def __init__(self, stream: Any, size: int, what: str) -> None:
        super().__init__()
        self._stream = stream
        self._what = what
        self._position = 0
        self.size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        with guard(self._what):
            self._stream.seek(self._position)
            data: bytes = self._stream.read(wanted)
        if len(data) != wanted:
            raise DamagedError(f"{self._what}: ends {wanted - len(data)} bytes early")
        self._position += wanted
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def close(self) -> None:
        if not self.closed:
            super().close()
            if hasattr(self._stream, "close"):
                self._stream.close()
