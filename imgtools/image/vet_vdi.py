"""Vet a VirtualBox VDI.  Source: block/vdi.c of qemu, for VDI version 1.1."""

from __future__ import annotations

import struct

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import VDI
from imgtools.image.source import Source

MAX_BLOCKS = 0x3FFF_FFFF
_TYPES = {1: "dynamic", 2: "static", 3: "undo", 4: "differencing"}


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header of a VDI.  Raises ImageError when it is none."""
    raw = source.read(0, 512, "the end of the VDI header")
    signature, version, _size, kind = struct.unpack("<IIII", raw[64:80])
    if signature != VDI:
        raise ImageError(f"{source.path}: not a VDI image (no signature)")
    map_offset, data_offset, _c, _h, _s, sector, _unused = struct.unpack("<7I", raw[340:368])
    size, block, _extra, blocks, allocated = struct.unpack("<QIIII", raw[368:392])
    problems: list[Problem] = []

    def bad(code: str, message: str) -> None:
        problems.append(Problem(code=f"vdi.{code}", message=message))

    if version != 0x0001_0001:
        bad("unsupported", f"VDI version {version >> 16}.{version & 0xFFFF} cannot be read")
    if kind not in (1, 2) or any(raw[424:456]):
        what = _TYPES.get(kind, f"type {kind}")
        bad("unsupported", f"a {what} VDI that rests on another one, which it names by UUID only")
    if sector != 512 or map_offset % 512 or data_offset % 512:
        bad("layout", "its tables are not on sectors of 512 bytes")
    if block != 1 << 20:
        bad("unsupported", f"blocks of {block} bytes cannot be read (1 MiB can)")
    if blocks > MAX_BLOCKS or size > blocks * block:
        bad("size", f"the virtual size of {size} bytes does not fit its {blocks} blocks")
    elif map_offset + blocks * 4 > source.size:
        bad("truncated", "truncated: its block map is beyond the end of the file")
    elif data_offset + allocated * block > source.size:
        bad("truncated", f"truncated: the file has {source.size} bytes and lacks allocated blocks")
    return ImageHeader(
        path=source.path,
        format="vdi",
        stated=stated,
        file_size=source.size,
        virtual_size=(size + 511) // 512 * 512,
        identity=source.identity,
        version=version >> 16,
        variant=_TYPES.get(kind, ""),
        cluster_size=block,
        needs_parent=kind == 4,
        problems=tuple(problems),
    )
