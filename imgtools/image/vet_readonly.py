"""Vet growing Bochs images and cloop images, which qemu only reads.

Sources: block/bochs.c and block/cloop.c of qemu.
"""

from __future__ import annotations

import sys
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import BOCHS, CLOOP

if TYPE_CHECKING:
    from imgtools.image.source import Source

MAX_CATALOG = 0x100000  # entries, as in qemu
MAX_EXTENT = 0x800000  # bytes, as in qemu
MAX_BLOCK = 64 << 20  # bytes, as in qemu
MAX_BLOCKS = 4 << 20
_UNUSED = 0xFFFF_FFFF
_GROWING = b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0")


def vet_bochs(source: Source, *, stated: bool) -> ImageHeader:
    """Read header and catalog of a Bochs image.  Raises ImageError when it is none."""
    raw = source.read(0, 512, "the end of the Bochs header")
    if not raw.startswith(BOCHS):
        raise ImageError(f"{source.path}: not a Bochs image (no signature)")
    version, header, entries, bitmap, extent = (
        int.from_bytes(raw[at : at + 4], "little") for at in range(64, 84, 4)
    )
    # Version 2 has a reserved word in front of the size.
    place = 84 if version == 0x10000 else 88
    sectors = int.from_bytes(raw[place : place + 8], "little") // 512
    problems: list[Problem] = []

    def bad(code: str, message: str) -> None:
        problems.append(Problem(code=f"bochs.{code}", message=message))

    if raw[32:64] != _GROWING or version not in (0x10000, 0x20000):
        bad("unsupported", "only growing Bochs images can be read, of version 1 or 2")
    if not 512 <= extent <= MAX_EXTENT or extent & (extent - 1) or not bitmap:
        bad("layout", f"extents of {extent} bytes")
    elif entries > MAX_CATALOG or entries < -(-sectors * 512 // extent):
        bad("size", f"its catalog of {entries} extents does not fit {sectors} sectors")
    else:
        size = 512 * (-(-bitmap // 512) + extent // 512)
        catalog = _words(source.read(header, entries * 4, "the end of its catalog"), "I", "little")
        used = max((entry for entry in catalog if entry != _UNUSED), default=-1)
        if header + entries * 4 + (used + 1) * size > source.size:
            bad("truncated", "truncated: an extent is beyond the end of the file")
        if bitmap * 8 < extent // 512:
            bad("layout", f"bitmaps of {bitmap} bytes are too short for its extents")
    return ImageHeader(
        path=source.path,
        format="bochs",
        stated=stated,
        file_size=source.size,
        virtual_size=sectors * 512,
        identity=source.identity,
        version=version >> 16,
        variant="growing",
        cluster_size=extent,
        problems=tuple(problems),
    )


def vet_cloop(source: Source, *, stated: bool) -> ImageHeader:
    """Read header and offsets of a cloop image.  Raises ImageError when it is none."""
    raw = source.read(0, 136, "the end of the cloop header")
    if not raw.startswith(CLOOP):
        raise ImageError(f"{source.path}: not a cloop image of version 2 (no signature)")
    block = int.from_bytes(raw[128:132], "big")
    blocks = int.from_bytes(raw[132:136], "big")
    problems: list[Problem] = []

    def bad(code: str, message: str) -> None:
        problems.append(Problem(code=f"cloop.{code}", message=message))

    if not block or block % 512 or block > MAX_BLOCK:
        bad("layout", f"blocks of {block} bytes")
    # qemu counts the sectors in 32 bits.
    elif blocks > MAX_BLOCKS or blocks * (block // 512) > 0xFFFF_FFFF:
        bad("unsupported", f"{blocks} blocks of {block} bytes are more than can be read")
    else:
        table = source.read(136, (blocks + 1) * 8, "the end of its table of blocks")
        offsets = _words(table, "Q", "big")
        if any(after < before for before, after in pairwise(offsets)):
            bad("table", "damaged: its blocks are not in order")
        elif (
            max((after - before for before, after in pairwise(offsets)), default=0) > 2 * MAX_BLOCK
        ):
            bad("table", "damaged: a block of more than 128 MiB")
        elif offsets[-1] > source.size:
            bad("truncated", f"truncated: the file has {source.size} bytes and lacks blocks")
    return ImageHeader(
        path=source.path,
        format="cloop",
        stated=stated,
        file_size=source.size,
        virtual_size=blocks * block,
        identity=source.identity,
        version=2,
        cluster_size=block,
        compression="zlib",
        problems=tuple(problems),
    )


def _words(raw: bytes, kind: str, order: str) -> array[int]:
    words = array(kind, raw)
    if order != sys.byteorder:
        words.byteswap()
    return words
