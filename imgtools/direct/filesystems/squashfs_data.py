"""Blocks of squashfs: superblock, metadata, tables, file data; nothing inflates beyond its bound.

Source: Linux Documentation/filesystems/squashfs.rst.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.importing import import_only, zstd
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

WHAT = "the squashfs filesystem"
MAGIC = 0x73717368
METADATA = 8192
NO_FRAGMENT = 0xFFFFFFFF
UNCOMPRESSED_METADATA = 0x8000
UNCOMPRESSED_DATA = 1 << 24
MAX_READ = 64 << 20  # of metadata at once: a block list of a 2 TiB file
XZ_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Super:
    """The superblock; tables are offsets in bytes."""

    inodes: int
    block: int
    fragments: int
    compression: int
    ids: int
    root: int
    used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int


def read_super(source: BlockStream) -> Super:
    """Read the superblock.  Raises DirectUnsupportedError, DamagedError."""
    raw = read_exactly(source, 0, 96, WHAT)
    magic, inodes, _, block, fragments = struct.unpack_from("<5I", raw)
    compression, log, _, ids, major, _ = struct.unpack_from("<6H", raw, 20)
    root, used, id_table, xattr, inode, directory, fragment, _ = struct.unpack_from("<8Q", raw, 32)
    if magic != MAGIC or major != 4:
        raise DirectUnsupportedError(f"{WHAT} is of an old version")
    if not 4096 <= block <= 1 << 20 or block != 1 << log or not 0 < used <= source.size:
        raise DamagedError(f"{WHAT}: a bad superblock")
    return Super(
        inodes=inodes,
        block=block,
        fragments=fragments,
        compression=compression,
        ids=ids,
        root=root,
        used=used,
        id_table=id_table,
        xattr_table=xattr,
        inode_table=inode,
        directory_table=directory,
        fragment_table=fragment,
    )


class Metadata:
    """A cursor over metadata blocks, which follow one another."""

    def __init__(self, reader: Reader, block: int, offset: int) -> None:
        self._reader = reader
        self._block = block
        self._offset = offset

    @property
    def position(self) -> tuple[int, int]:
        """Where the cursor is, for `Reader.seek`."""
        return self._block, self._offset

    def read(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > MAX_READ:
            raise DamagedError(f"{WHAT}: {length} bytes of metadata")
        pieces = []
        while length > 0:
            data, following = self._reader.metadata(self._block)
            if self._offset >= len(data):
                if len(data) != METADATA:
                    raise DamagedError(f"{WHAT}: metadata ends early")
                self._block, self._offset = following, self._offset - METADATA
                continue
            piece = data[self._offset : self._offset + length]
            pieces.append(piece)
            self._offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def unpack(self, form: str) -> tuple[Any, ...]:
        """The next fields, as ``struct`` names them."""
        return struct.unpack(form, self.read(struct.calcsize(form)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A file's data: block sizes from ``start``, and (fragment, offset) of its tail."""

    start: int
    sizes: tuple[int, ...]
    fragment: tuple[int, int] | None


class Reader:
    """Reads and inflates blocks."""

    def __init__(self, source: BlockStream, superblock: Super) -> None:
        self._source = source
        self.super = superblock
        self._inflate = _inflater(superblock.compression)
        self.metadata = lru_cache(256)(self._metadata)
        self.data = lru_cache(8)(self._data)

    def at(self, table: int, reference: int) -> Metadata:
        """A cursor at a reference (block behind ``table``, offset in it)."""
        return Metadata(self, table + (reference >> 16), reference & 0xFFFF)

    def seek(self, position: tuple[int, int]) -> Metadata:
        """A cursor where another one was."""
        return Metadata(self, *position)

    def table(self, start: int, index: int, size: int) -> bytes:
        """Entry ``index`` of a table of entries of ``size`` bytes, found by block pointers."""
        block, offset = divmod(index * size, METADATA)
        pointer = read_exactly(self._source, start + 8 * block, 8, WHAT)
        return Metadata(self, int.from_bytes(pointer, "little"), offset).read(size)

    def fragment(self, index: int) -> bytes:
        """The content of a fragment block."""
        if index >= self.super.fragments:
            raise DamagedError(f"{WHAT}: a fragment beyond the table")
        start, size = struct.unpack_from("<QI", self.table(self.super.fragment_table, index, 16))
        return self.data(start, size)

    def _metadata(self, block: int) -> tuple[bytes, int]:
        header = int.from_bytes(read_exactly(self._source, block, 2, WHAT), "little")
        size = header & ~UNCOMPRESSED_METADATA
        if not 0 < size <= METADATA:
            raise DamagedError(f"{WHAT}: a metadata block of {size} bytes")
        raw = read_exactly(self._source, block + 2, size, WHAT)
        data = raw if header & UNCOMPRESSED_METADATA else self._inflate(raw, METADATA)
        return data, block + 2 + size

    def _data(self, start: int, size: int) -> bytes:
        stored = size & ~UNCOMPRESSED_DATA
        if stored > self.super.block:
            raise DamagedError(f"{WHAT}: a block of {stored} bytes")
        raw = read_exactly(self._source, start, stored, WHAT)
        return raw if size & UNCOMPRESSED_DATA else self._inflate(raw, self.super.block)


class FileData(BlockStream):
    """A file's content."""

    def __init__(self, reader: Reader, size: int, blocks: Blocks) -> None:
        super().__init__(size)
        self._reader = reader
        self._blocks = blocks
        self._starts = [blocks.start]
        for stored in blocks.sizes:
            self._starts.append(self._starts[-1] + (stored & ~UNCOMPRESSED_DATA))

    def _read_at(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0:
            index, inner = divmod(offset, self._reader.super.block)
            data = self._block(index)
            piece = data[inner : inner + length]
            if not piece:
                raise DamagedError(f"{WHAT}: a file ends early")
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, index: int) -> bytes:
        size = min(self._reader.super.block, self.size - index * self._reader.super.block)
        if index < len(self._blocks.sizes):
            stored = self._blocks.sizes[index]
            if stored == 0:
                return bytes(size)
            data = self._reader.data(self._starts[index], stored)
        elif self._blocks.fragment is not None:
            number, offset = self._blocks.fragment
            data = self._reader.fragment(number)[offset : offset + size]
        else:
            raise DamagedError(f"{WHAT}: a file ends early")
        if len(data) < size:
            raise DamagedError(f"{WHAT}: a block ends early")
        return data[:size]


def _inflater(compression: int) -> Callable[[bytes, int], bytes]:
    known = {1: _zlib, 3: _lzo, 4: _xz, 5: _lz4, 6: _zstd}
    if compression not in known:
        raise DirectUnsupportedError(f"{WHAT}: compression {compression}")
    return known[compression]


def _zlib(raw: bytes, bound: int) -> bytes:
    return zlib.decompressobj().decompress(raw, bound)


def _xz(raw: bytes, bound: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY).decompress(raw, bound)


def _lzo(raw: bytes, bound: int) -> bytes:
    data: bytes = import_only("dissect.util.compression.lzo").decompress(raw, False, bound)
    return data


def _lz4(raw: bytes, bound: int) -> bytes:
    data: bytes = import_only("lz4.block").decompress(raw, uncompressed_size=bound)
    return data


def _zstd(raw: bytes, bound: int) -> bytes:
    data: bytes = zstd().ZstdDecompressor().decompress(raw, bound)
    return data
