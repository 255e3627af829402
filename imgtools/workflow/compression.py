"""Compress a stream on its way out, by the names of guestfish's tar-out."""

from __future__ import annotations

import io
from typing import IO, BinaryIO, Protocol, cast

from imgtools.errors import MissingBindingError, UsageError

COMPRESSIONS = ("gzip", "bzip2", "xz", "lzma", "zstd")


class _Compressor(Protocol):
    def write(self, data: bytes, /) -> int: ...
    def close(self) -> None: ...


class Compressed(io.RawIOBase):
    """Writes what it gets compressed into ``sink``; `close` ends the stream, not the sink.

    Raises UsageError for an unknown ``kind``, MissingBindingError for zstd without its library.
    """

    def __init__(self, sink: BinaryIO, kind: str) -> None:
        super().__init__()
        self._inner = _open(sink, kind)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Compress ``data``."""
        self._inner.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing: a flush in between would cost compression."""

    def close(self) -> None:
        """Write the end of the compressed stream."""
        if not self.closed:
            self._inner.close()
        super().close()


def check_compression(kind: str) -> str:
    """The name of a compression that we know.  Raises UsageError."""
    if kind not in COMPRESSIONS:
        raise UsageError(f"--compress {kind}: unknown", hint=f"known: {', '.join(COMPRESSIONS)}")
    return kind


def _open(sink: BinaryIO, kind: str) -> _Compressor:
    check_compression(kind)
    if kind == "gzip":
        import gzip

        # No name and no time: the same guest gives the same archive.
        return cast("_Compressor", gzip.GzipFile("", "wb", 6, sink, mtime=0))
    if kind == "bzip2":
        import bz2

        return cast("_Compressor", bz2.BZ2File(sink, "wb"))
    if kind in ("xz", "lzma"):
        import lzma

        form = lzma.FORMAT_XZ if kind == "xz" else lzma.FORMAT_ALONE
        return cast("_Compressor", lzma.LZMAFile(cast("IO[bytes]", sink), "wb", format=form))
    try:
        from imgtools.direct.importing import zstd

        module = zstd()
    except ImportError as error:
        raise MissingBindingError(
            "zstd is not available", hint="pip install backports.zstd, or --compress xz"
        ) from error
    return cast("_Compressor", module.ZstdFile(sink, "wb"))
