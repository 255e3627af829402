"""Swap spaces: where their header ends, and whether anything was left behind it.

The header takes the first page, at whose end is a signature, and holds UUID, label and size; all
after it is content (mm/swapfile.c and include/linux/swap.h of Linux, mkswap(8)).
"""

from __future__ import annotations

import io
from typing import BinaryIO

PAGES = (4096, 8192, 16384, 32768, 65536)
SIGNATURES = (b"SWAPSPACE2", b"SWAP-SPACE")
_ZEROS = bytes(1 << 20)


def header_size(head: bytes) -> int:
    """Bytes of the header, 0 for what is no swap space; ``head`` are its first 64 KiB."""
    return next((page for page in PAGES if head[page - 10 : page] in SIGNATURES), 0)


def is_clear(stream: BinaryIO) -> bool:
    """True for a swap space without content, and for what is none."""
    header = header_size(stream.read(PAGES[-1]))
    if not header:
        return True
    stream.seek(header, io.SEEK_SET)
    while piece := stream.read(len(_ZEROS)):
        if piece != _ZEROS[: len(piece)]:
            return False
    return True
