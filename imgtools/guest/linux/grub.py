"""The core image of GRUB for BIOS, in which the names of disks are compressed.

It is boot sectors (diskboot.img), a program that unpacks (lzma_decompress.img) and an LZMA stream
without a header, of which the sizes are in that program (grub-core/boot/i386/pc/startup_raw.S,
include/grub/offsets.h; the stream's parameters in util/mkimage.c, compress_kernel_lzma).
"""

from __future__ import annotations

import lzma
import struct

MAX_CORE = 4 << 20
_SECTOR = 512
_SIZES = _SECTOR + 8  # of the stream, and of what it unpacks to, as 32-bit numbers
_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]


def core_text(image: bytes) -> bytes | None:
    """What the core.img of an i386-pc GRUB unpacks to: modules, prefix, embedded commands.

    None if it is none that is known.
    """
    if len(image) < _SIZES + 8:
        return None
    packed, unpacked = struct.unpack_from("<II", image, _SIZES)
    start = len(image) - packed  # the size of the program differs between versions
    if not (packed > 0 and start >= 2 * _SECTOR and 0 < unpacked <= MAX_CORE):
        return None
    return _unpack(image[start:], unpacked)


def _unpack(stream: bytes, size: int) -> bytes | None:
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        text = unpacker.decompress(stream, size)
    except lzma.LZMAError:
        return None
    # Bytes that are no stream often unpack to something: modules name GRUB's functions.
    return text if len(text) == size and b"grub_" in text else None
