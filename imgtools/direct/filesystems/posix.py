"""Pieces that several Unix filesystems store alike."""

from __future__ import annotations

import os
import struct

from imgtools.errors import DamagedError

ACL_NAMES = (b"system.posix_acl_access", b"system.posix_acl_default")
MAX_LINK = 4095  # PATH_MAX less the NUL: no Linux filesystem makes longer ones
_NO_ID = 0xFFFFFFFF
_TAGS_WITH_ID = (0x02, 0x08)
_TAGS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20)


def acl_xattr(entries: list[tuple[int, int, int]]) -> bytes:
    """The value of a ``system.posix_acl_…`` attribute from (tag, permissions, id).

    Format: linux/posix_acl_xattr.h, version 2.
    """
    parts = [struct.pack("<I", 2)]
    for tag, permissions, owner in entries:
        if tag not in _TAGS:
            raise DamagedError(f"an access control list with an entry of kind {tag:#x}")
        shown = owner if tag in _TAGS_WITH_ID else _NO_ID
        parts.append(struct.pack("<HHI", tag, permissions, shown))
    return b"".join(parts)


def decode_device(old: int, new: int) -> int:
    """``st_rdev`` from the kernel's 16-bit and 32-bit encodings (linux/kdev_t.h)."""
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return decode_device_new(new)


def decode_device_new(new: int) -> int:
    """``st_rdev`` from the kernel's 32-bit encoding."""
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)


def link_target(data: bytes) -> bytes:
    """A symbolic link's target as readlink(2) gives it: up to the first NUL."""
    target = data.partition(b"\0")[0]
    if not target or len(target) > MAX_LINK:
        raise DamagedError(f"a symbolic link of {len(target)} bytes")
    return target
