"""Linux MD RAID arrays: which exist, and their content as streams."""

from __future__ import annotations

import struct

from imgtools.direct.streams import BlockStream

MD_MAGIC = 0xA92B4EFC


def find_superblock(stream: BlockStream, name: str) -> tuple[int, int] | None:
    """Return (byte offset, minor version or 90) of an MD superblock on the device ``name``."""
    del name
    size = stream.size
    places = [
        (((size & ~0xFFFF) - 0x10000), 90),
        ((size - 0x2000) & ~0xFFF, 0),
        (0, 1),
        (0x1000, 2),
    ]
    for offset, minor in places:
        if offset < 0:
            continue
        head = stream.read_at(offset, 8)
        if len(head) == 8 and struct.unpack("<I", head[:4])[0] == MD_MAGIC:
            return offset, minor
    return None
