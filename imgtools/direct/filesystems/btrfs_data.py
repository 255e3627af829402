"""File data of btrfs: extents, plain or compressed, each inflated within its stated bound."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from imgtools.direct.filesystems.btrfs_volume import WHAT, Volume
from imgtools.direct.importing import import_only, zstd
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

NONE, ZLIB, LZO, ZSTD = 0, 1, 2, 3
MAX_COMPRESSED = 1 << 20  # the kernel makes 128 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An extent of a file: ``length`` bytes at ``offset`` in the file.

    They are the bytes from ``start`` of an extent of ``ram`` bytes, which are ``stored`` bytes at
    the address ``logical``.
    """

    offset: int
    length: int
    logical: int
    stored: int
    start: int
    ram: int
    compression: int


class FileData(BlockStream):
    """A file's content; what no piece covers reads as zeros."""

    def __init__(self, volume: Volume, size: int, pieces: list[Piece]) -> None:
        super().__init__(size)
        self._volume = volume
        self._pieces = pieces
        self._starts = [piece.offset for piece in pieces]
        self._inflated = lru_cache(4)(self._inflate)

    def _read_at(self, offset: int, length: int) -> bytes:
        end = offset + length
        parts: list[bytes] = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while offset < end:
            piece = self._pieces[index] if index < len(self._pieces) else None
            if piece is None or offset < piece.offset:
                until = end if piece is None else min(end, piece.offset)
                parts.append(bytes(until - offset))
                offset = until
                continue
            take = min(end, piece.offset + piece.length) - offset
            if take > 0:
                parts.append(self._part(piece, offset - piece.offset, take))
                offset += take
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, piece: Piece, inner: int, length: int) -> bytes:
        start = piece.start + inner
        if piece.compression == NONE:
            return self._volume.read(piece.logical + start, length)
        data = self._inflated(piece.logical, piece.stored, piece.ram, piece.compression)
        if start + length > len(data):
            # A last sector is not stored whole; the kernel shows zeros behind what there is.
            data = data.ljust(piece.ram, b"\0")
        return data[start : start + length]

    def _inflate(self, logical: int, stored: int, ram: int, compression: int) -> bytes:
        if stored > MAX_COMPRESSED:
            raise DamagedError(f"{WHAT}: a compressed extent of {stored} bytes")
        raw = self._volume.read(logical, stored)
        return inflate(raw, compression, ram, self._volume.super.sector)


def inflate(raw: bytes, compression: int, size: int, sector: int) -> bytes:
    """At most ``size`` bytes from ``raw``.  Raises DamagedError, DirectUnsupportedError."""
    if compression == NONE:
        return raw
    if size > MAX_COMPRESSED:
        raise DamagedError(f"{WHAT}: a compressed extent of {size} bytes")
    if compression == ZLIB:
        return _complete(zlib.decompressobj(), raw, size)
    if compression == LZO:
        return _lzo(raw, size, sector)
    if compression == ZSTD:
        return _complete(zstd().ZstdDecompressor(), raw, size)
    raise DirectUnsupportedError(f"{WHAT}: compression {compression}")


def _complete(decompressor: Any, raw: bytes, size: int) -> bytes:
    """What a stream holds; it must end, or fill ``size``, or it was cut off."""
    data: bytes = decompressor.decompress(raw, size)
    if len(data) < size and not decompressor.eof:
        raise DamagedError(f"{WHAT}: a compressed extent is cut off")
    return data


def _lzo(raw: bytes, size: int, sector: int) -> bytes:
    """Segments of at most a sector, each behind its length, which never straddles a sector.

    Source: the comment at the head of Linux fs/btrfs/lzo.c.
    """
    lzo: Any = import_only("dissect.util.compression.lzo")
    total = int.from_bytes(raw[:4], "little")
    if total > len(raw):
        raise DamagedError(f"{WHAT}: a bad LZO extent")
    position, result = 4, b""
    while position < total and len(result) < size:
        if sector - position % sector < 4:
            position += sector - position % sector
        length = int.from_bytes(raw[position : position + 4], "little")
        segment = raw[position + 4 : position + 4 + length]
        if not length or len(segment) != length:
            raise DamagedError(f"{WHAT}: a bad LZO segment")
        result += lzo.decompress(segment, False, sector + sector // 16 + 67)
        position += 4 + length
    return result[:size]
