"""Undo what journald compresses long fields with, never to more than a bound.

An object's flags say which: 1 xz, 2 lz4 (a block behind its size as a 64-bit number), 4 zstd.
"""

from __future__ import annotations

import struct

XZ, LZ4, ZSTD = 1, 2, 4
MAX_XZ_MEMORY = 64 << 20


class CannotDecompressError(Exception):
    """Damaged, larger than the bound, or by a method whose library is not there."""


def decompress(data: bytes, method: int, limit: int) -> bytes:
    """The field that ``data`` was made of, of at most ``limit`` bytes."""
    try:
        if method == XZ:
            result = _xz(data, limit)
        elif method == LZ4:
            result = _lz4(data, limit)
        elif method == ZSTD:
            result = _zstd(data, limit)
        else:
            raise CannotDecompressError("an unknown method")
    except ImportError as error:
        raise CannotDecompressError(str(error)) from error
    if len(result) > limit:
        raise CannotDecompressError("larger than the bound")
    return result


def _xz(data: bytes, limit: int) -> bytes:
    import lzma

    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY)
    try:
        result = decompressor.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise CannotDecompressError(str(error)) from error
    return _whole(result, complete=decompressor.eof)


def _lz4(data: bytes, limit: int) -> bytes:
    import lz4.block

    size = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else limit + 1
    if size > limit:
        raise CannotDecompressError("larger than the bound")
    try:
        result: bytes = lz4.block.decompress(data[8:], uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise CannotDecompressError(str(error)) from error
    return result


def _zstd(data: bytes, limit: int) -> bytes:
    from imgtools.direct.importing import zstd

    decompressor = zstd().ZstdDecompressor()
    try:
        result: bytes = decompressor.decompress(data, limit + 1)
    except zstd().ZstdError as error:
        raise CannotDecompressError(str(error)) from error
    return _whole(result, complete=decompressor.eof)


def _whole(result: bytes, *, complete: bool) -> bytes:
    if not complete:
        raise CannotDecompressError("cut off, or larger than the bound")
    return result
