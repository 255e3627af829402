"""Vet an Apple disk image (UDIF, ``.dmg``).

Source: block/dmg.c of qemu.  At the end stands a trailer ("koly") that says where the property list
or the resource fork is; tables ("mish") in there say which chunk of the data fork holds which
sectors, and how it is compressed.  qemu takes the tables from every ``<data>`` of the list.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import KOLY_SIZE, koly_offset
from imgtools.image.source import Source

MAX_LIST = 16 << 20  # bytes, as in qemu
MAX_CHUNK = 64 << 20  # bytes, as in qemu
MAX_CHUNKS = 1 << 20

_ZEROS, _RAW, _IGNORE, _ZLIB, _BZIP2, _LZFSE = 0, 1, 2, 0x80000005, 0x80000006, 0x80000007
_COMMENT, _END = 0x7FFFFFFE, 0xFFFFFFFF
_NAMES = {0x80000004: "ADC", _ZLIB: "zlib", _BZIP2: "bzip2", _LZFSE: "lzfse", 0x80000008: "lzma"}
_READABLE = (_ZEROS, _RAW, _IGNORE, _ZLIB, _BZIP2, _LZFSE)
# Those which qemu-img reads by a module of its own, if it was built with one.
BY_MODULE = frozenset({"bzip2", "lzfse"})


class Chunk(NamedTuple):
    """Sectors ``sector`` to ``sector + sectors`` of the disk, in bytes of the file."""

    kind: int
    sector: int
    sectors: int
    offset: int
    length: int


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the trailer and the tables.  Raises ImageError when it is no such image."""
    at = koly_offset(source)
    if at is None:
        raise ImageError(f"{source.path}: not a dmg image (no trailer at its end)")
    trailer = source.read(at, KOLY_SIZE, "the end of the dmg trailer")
    (sectors,) = struct.unpack(">Q", trailer[0x1EC:0x1F4])
    problems: list[Problem] = []
    chunks: list[Chunk] = []
    try:
        chunks = _chunks(source, trailer, at)
    except _SenselessError as error:
        problems.append(Problem(code="dmg.table", message=f"damaged: {error}"))
    else:
        problems += _problems(chunks, sectors, at)
    found = sorted({_NAMES[chunk.kind] for chunk in chunks if chunk.kind in _NAMES})
    return ImageHeader(
        path=source.path,
        format="dmg",
        stated=stated,
        file_size=source.size,
        virtual_size=sectors * 512,
        identity=source.identity,
        version=struct.unpack(">I", trailer[4:8])[0],
        compression="+".join(found) or None,
        problems=tuple(problems),
    )


def first_by_module(source: Source) -> tuple[str, int] | None:
    """The compression that qemu-img may lack, and the byte of the disk where it is first used.

    For an image that was vetted.
    """
    at = koly_offset(source)
    assert at is not None
    chunks = _chunks(source, source.read(at, KOLY_SIZE, "the end of the dmg trailer"), at)
    return next(
        ((_NAMES[one.kind], one.sector * 512) for one in chunks if one.kind in (_BZIP2, _LZFSE)),
        None,
    )


class _SenselessError(Exception):
    """The tables make no sense."""


def _chunks(source: Source, trailer: bytes, at: int) -> list[Chunk]:
    data_fork, _length = struct.unpack(">QQ", trailer[0x18:0x28])
    fork, fork_size = struct.unpack(">QQ", trailer[0x28:0x38])
    listed, list_size = struct.unpack(">QQ", trailer[0xD8:0xE8])
    if data_fork > at or fork + fork_size > at or listed + list_size > at:
        raise _SenselessError("its trailer names places beyond itself")
    tables = _in_fork(source, fork, fork_size) if fork_size else _in_list(source, listed, list_size)
    chunks: list[Chunk] = []
    for table in tables:
        if table[:4] != b"mish" or len(table) < 244:
            continue
        first, _count, place = struct.unpack(">QQQ", table[8:32])
        end = 204 + (len(table) - 204) // 40 * 40
        for kind, _, sector, count, offset, length in struct.iter_unpack(">IIQQQQ", table[204:end]):
            if kind not in (_COMMENT, _END):
                where = data_fork + place + offset
                chunks.append(Chunk(kind, first + sector, count, where, length))
        if len(chunks) > MAX_CHUNKS:
            raise _SenselessError(f"more than {MAX_CHUNKS} chunks")
    return chunks


def _in_list(source: Source, offset: int, size: int) -> Iterator[bytes]:
    if not 0 < size <= MAX_LIST:
        raise _SenselessError(f"a property list of {size} bytes")
    text = source.read(offset, size, "the end of the property list")
    for found in re.finditer(rb"<data>([^<]*)", text):
        try:
            yield base64.b64decode(found[1])
        except binascii.Error:
            raise _SenselessError("its property list is no base64") from None


def _in_fork(source: Source, offset: int, size: int) -> Iterator[bytes]:
    if not 16 <= size <= MAX_LIST:
        raise _SenselessError(f"a resource fork of {size} bytes")
    fork = source.read(offset, size, "the end of the resource fork")
    begin, _map, length = struct.unpack(">III", fork[:12])
    end = begin + length
    if end > size:
        raise _SenselessError("its resources reach beyond their fork")
    while begin < end:
        (length,) = struct.unpack(">I", fork[begin : begin + 4].ljust(4, b"\0"))
        begin += 4
        if not length or length > end - begin:
            raise _SenselessError("a resource reaches beyond the others")
        yield fork[begin : begin + length]
        begin += length


def _problems(chunks: list[Chunk], sectors: int, at: int) -> Iterator[Problem]:
    # qemu looks for a chunk by bisection.
    next_sector = 0
    for chunk in chunks:
        kind, sector, count, offset, length = chunk
        if kind not in _READABLE:
            what = _NAMES.get(kind, f"{kind:#x}")
            yield Problem(code="dmg.compression", message=f"chunks of the kind {what}")
            return
        if sector != next_sector or sector + count > sectors:
            yield Problem(code="dmg.table", message="damaged: its chunks overlap, or leave gaps")
            return
        next_sector = sector + count
        if kind in (_ZEROS, _IGNORE):
            continue
        if length > MAX_CHUNK or count * 512 > MAX_CHUNK:
            yield Problem(code="dmg.unsupported", message="a chunk of more than 64 MiB")
            return
        # qemu has room for the bytes, and would show what lies behind it in its memory.
        if kind == _RAW and length != count * 512:
            yield Problem(code="dmg.table", message="damaged: a chunk is not of its length")
            return
        if offset + length > at:
            message = f"truncated: a chunk at {offset} is beyond the end of the data"
            yield Problem(code="dmg.truncated", message=message)
            return
    if next_sector != sectors:
        message = f"damaged: its chunks hold {next_sector} sectors of {sectors}"
        yield Problem(code="dmg.table", message=message)
