"""When a file was made: statx(2), which Python does not offer.

``struct statx`` of linux/stat.h: the mask of what is known at 0, the birth time at 80 (seconds
as 64 bits, nanoseconds as 32).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_SIZE = 256
_BIRTH_AT = 80


def birth_time(path: Path) -> int | None:
    """Nanoseconds since the epoch at which the file was made here; None where nobody keeps that.

    A symbolic link is followed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "statx"):  # glibc before 2.28
        return None
    buffer = ctypes.create_string_buffer(_SIZE)
    if libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", buffer.raw, 0)
    if not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", buffer.raw, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
