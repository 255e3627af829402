"""Find and replace text of one length in an initramfs, without unpacking it or running the guest.

An initramfs is a row of cpio archives, each plain or compressed, with zeros between them
(Documentation/driver-api/early-userspace/buffer-format.rst of Linux).  What is replaced has the
length that it had, so a cpio archive stays one; only parts that name the text are compressed
again, by the method that they had.  Everything is done in pieces, whatever the sizes.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from imgtools.errors import GuestOperationError

MAX_PACKED = 1 << 30
MAX_UNPACKED = 4 << 30
MAX_FOUND = 10_000
_PIECE = 256 << 10
_OUT = 1 << 20
_LZ4_BLOCK = 8 << 20  # lib/decompress_unlz4.c: LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE
_LZ4_MAGIC = b"\x02\x21\x4c\x18"
_HEADER = 110  # bytes of a newc header: a magic of 6, 13 fields of 8 hexadecimal digits
_FIELDS = re.compile(rb"07070[12].{48}([0-9A-Fa-f]{8}).{32}([0-9A-Fa-f]{8}).{8}", re.DOTALL)
_MAX_NAME = 1 << 16
_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (_LZ4_MAGIC, "lz4"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x89LZO", "lzo"),
)


class DamagedInitramfsError(GuestOperationError):
    """It is no initramfs, or is cut off: a kernel could not unpack it either."""

    code = "guest.initramfs-damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes ``start`` to ``end`` of the file; ``found``: the text is in it."""

    method: str
    start: int
    end: int
    found: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What to look for: ``names`` says whether bytes hold it, ``replace`` changes it, keeping the
    length; ``longest`` bytes hold one occurrence and what must be seen around it."""

    names: Callable[[bytes], bool]
    replace: Callable[[bytes], bytes]
    longest: int


def scan(stream: BinaryIO, text: Text) -> list[Part]:
    """The parts of an initramfs.

    Raises DamagedInitramfsError, and GuestOperationError for one that cannot be looked into.
    """
    reader, parts = _Reader(stream), []
    unpacked = 0
    while head := reader.peek(6):
        start = reader.offset
        method = _method(head)
        found, first, tail = False, b"", b""
        for piece in _pieces(reader, method):
            unpacked += len(piece)
            if unpacked > MAX_UNPACKED or reader.offset > MAX_PACKED:
                raise DamagedInitramfsError("is larger than any that boots")
            first = first or piece[:6]
            seen = tail + piece
            found = found or text.names(seen)
            tail = seen[-text.longest :]
        if found and first == b"070702":
            raise GuestOperationError("has checksums of its files", hint="make it again without")
        parts.append(Part(method=method, start=start, end=reader.offset, found=found))
    return parts


def matches(stream: BinaryIO, pattern: re.Pattern[bytes], longest: int) -> set[tuple[bytes, ...]]:
    """The groups of what ``pattern`` matches, at most ``longest`` bytes; no more than `MAX_FOUND`.

    Raises what `scan` raises.
    """
    found: set[tuple[bytes, ...]] = set()

    def look(data: bytes) -> bool:
        if len(found) < MAX_FOUND:
            found.update(one.groups() for one in pattern.finditer(data))
        return False

    scan(stream, Text(names=look, replace=bytes, longest=longest))
    return found


def rewritten(stream: BinaryIO, parts: Iterable[Part], text: Text) -> Iterator[bytes]:
    """The file with the text replaced in the parts that were found to have it."""
    for part in parts:
        stream.seek(part.start)
        if not part.found:
            yield from _copy(stream, part.end - part.start)
            continue
        pieces = _replaced(_pieces(_Reader(stream, part.start), part.method), text)
        yield from pieces if part.method == "plain" else _compress(pieces, part.method)


def _replaced(pieces: Iterable[bytes], text: Text) -> Iterator[bytes]:
    """An occurrence at the end of a piece is held back until the next one completes it."""
    held = b""
    for piece in pieces:
        held = text.replace(held + piece)
        cut = max(0, len(held) - text.longest)
        yield held[:cut]
        held = held[cut:]
    yield text.replace(held)


def _copy(stream: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        piece = stream.read(min(count, _OUT))
        if not piece:
            raise DamagedInitramfsError("became shorter")
        count -= len(piece)
        yield piece


def _method(head: bytes) -> str:
    if head[0] == 0 or head in (b"070701", b"070702"):
        return "plain"
    for magic, method in _MAGICS:
        if head.startswith(magic):
            return method
    raise DamagedInitramfsError("is no initramfs")


class _Reader:
    """A stream read from the front, which knows where it is and takes bytes back."""

    def __init__(self, stream: BinaryIO, offset: int = 0) -> None:
        self._stream = stream
        self._buffer = b""
        self.offset = offset

    def peek(self, count: int) -> bytes:
        while len(self._buffer) < count and (more := self._stream.read(_PIECE)):
            self._buffer += more
        return self._buffer[:count]

    def take(self, count: int) -> bytes:
        """Up to ``count`` bytes; fewer only at the end."""
        data = self.peek(count)
        self._buffer = self._buffer[len(data) :]
        self.offset += len(data)
        return data

    def exactly(self, count: int) -> bytes:
        data = self.take(count)
        if len(data) < count:
            raise DamagedInitramfsError("is cut off")
        return data

    def back(self, data: bytes) -> None:
        self._buffer = data + self._buffer
        self.offset -= len(data)


def _pieces(reader: _Reader, method: str) -> Iterator[bytes]:
    """What is in the part that begins here; the reader is then at its end."""
    if method == "plain":
        return _plain(reader)
    if method == "lz4":
        return _unpack_lz4(reader)
    if method == "gzip":
        return _unpack_gzip(reader)
    return _unpack(reader, method)


# --- plain cpio ----------------------------------------------------------------------------------


def _plain(reader: _Reader) -> Iterator[bytes]:
    """One cpio archive, or the zeros before the next part."""
    if reader.peek(1) == b"\0":
        while (data := reader.take(_PIECE)) and not data.strip(b"\0"):
            yield data
        rest = data.lstrip(b"\0")
        reader.back(rest)
        yield bytes(len(data) - len(rest))
        return
    name = b""
    while name.rstrip(b"\0") != b"TRAILER!!!":
        header = reader.exactly(_HEADER)
        size, length = _sizes(header)
        name = reader.exactly(length)
        yield header + name + reader.take(-(_HEADER + length) % 4)
        todo = size
        while todo:
            piece = reader.exactly(min(todo, _OUT))
            todo -= len(piece)
            yield piece
        yield reader.take(-size % 4)


def _sizes(header: bytes) -> tuple[int, int]:
    """The sizes of the content and of the name behind a header."""
    sizes = _FIELDS.fullmatch(header)
    if sizes is None or not 0 < int(sizes[2], 16) <= _MAX_NAME:
        raise DamagedInitramfsError("holds a broken cpio archive")
    return int(sizes[1], 16), int(sizes[2], 16)


# --- compressed ----------------------------------------------------------------------------------


def _unpack_gzip(reader: _Reader) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(31)
    rest = b""
    try:
        while not unpacker.eof:
            data = rest or reader.take(_PIECE)
            if not data:
                raise DamagedInitramfsError("is cut off")
            yield unpacker.decompress(data, _OUT)
            rest = unpacker.unconsumed_tail
    except zlib.error as error:
        raise DamagedInitramfsError(f"is damaged ({error})") from error
    reader.back(unpacker.unused_data)


def _unpack(reader: _Reader, method: str) -> Iterator[bytes]:
    unpacker = _unpacker(method)
    errors: tuple[type[Exception], ...] = (lzma.LZMAError, OSError, ValueError)
    errors += _zstd_errors(method)
    try:
        while not unpacker.eof:
            data = (reader.take(_PIECE) or reader.exactly(1)) if unpacker.needs_input else b""
            yield unpacker.decompress(data, _OUT)
    except errors as error:
        raise DamagedInitramfsError(f"is damaged ({error})") from error
    reader.back(unpacker.unused_data)


def _unpack_lz4(reader: _Reader) -> Iterator[bytes]:
    block = _library("lz4")
    reader.exactly(len(_LZ4_MAGIC))
    while len(raw := reader.peek(4)) == 4:
        size = struct.unpack("<I", raw)[0]
        if not 0 < size <= _LZ4_BLOCK * 2:  # the next part, or zeros before it
            return
        reader.exactly(4)
        try:
            yield block.decompress(reader.exactly(size), uncompressed_size=_LZ4_BLOCK)
        except block.LZ4BlockError as error:
            raise DamagedInitramfsError(f"is damaged ({error})") from error


def _zstd_errors(method: str) -> tuple[type[Exception], ...]:
    return (_library(method).ZstdError,) if method == "zstd" else ()


def _unpacker(method: str) -> Any:
    if method == "bzip2":
        return bz2.BZ2Decompressor()
    if method in ("xz", "lzma"):
        return lzma.LZMADecompressor()
    return _library(method).ZstdDecompressor()


def _compress(pieces: Iterable[bytes], method: str) -> Iterator[bytes]:
    if method == "lz4":
        yield from _pack_lz4(pieces)
        return
    packer = _packer(method)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _packer(method: str) -> Any:
    """As the tools that make an initramfs do, so that the guest's kernel can read it."""
    if method == "gzip":
        return zlib.compressobj(9, zlib.DEFLATED, 31)
    if method == "bzip2":
        return bz2.BZ2Compressor()
    if method == "lzma":
        return lzma.LZMACompressor(lzma.FORMAT_ALONE)
    if method == "xz":  # Linux knows no other check than CRC32, and none of the larger ones
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
        return lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
    return _library(method).ZstdCompressor(level=9)


def _pack_lz4(pieces: Iterable[bytes]) -> Iterator[bytes]:
    block = _library("lz4")
    yield _LZ4_MAGIC
    held = b""
    for piece in chain(pieces, [b""]):
        held += piece
        while len(held) >= _LZ4_BLOCK or (held and not piece):
            packed = block.compress(held[:_LZ4_BLOCK], mode="high_compression", store_size=False)
            held = held[_LZ4_BLOCK:]
            yield struct.pack("<I", len(packed)) + packed


def _library(method: str) -> Any:
    from imgtools.direct.importing import import_only, zstd

    try:
        if method == "zstd":
            return zstd()
        if method == "lz4":
            return import_only("lz4.block")
    except ImportError as error:
        raise GuestOperationError(
            f"is compressed with {method}, and {error}", hint="pip install 'imgtools[direct]'"
        ) from error
    raise GuestOperationError(f"is compressed with {method}, which cannot be looked into")
