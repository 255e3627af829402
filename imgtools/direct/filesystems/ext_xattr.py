"""Extended attributes as ext keeps them: in the inode, in a block, in inodes of their own.

Source: Documentation/filesystems/ext4/attributes.rst; the ACL format is fs/ext4/acl.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from imgtools.direct.filesystems.posix import acl_xattr
from imgtools.errors import DamagedError

MAGIC = 0xEA020000
PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
ACLS = (2, 3)
SYSTEM = 7  # "data", the rest of an inline file; never listed
MAX_VALUE = 1 << 16

Attribute = tuple[int, bytes, bytes]  # prefix index, name, value


def in_inode(
    body: bytes, read_inode: Callable[[int, int], bytes], *, extra: int
) -> list[Attribute]:
    """The attributes behind the fields of a raw inode; ``extra`` is its i_extra_isize."""
    start = 128 + extra
    if len(body) <= 128 or start + 4 > len(body) or extra == 0:
        return []
    if struct.unpack_from("<I", body, start)[0] != MAGIC:
        return []
    return list(_entries(body[start + 4 :], 0, read_inode))


def in_block(block: bytes, read_inode: Callable[[int, int], bytes]) -> list[Attribute]:
    """The attributes of an attribute block."""
    if struct.unpack_from("<I", block)[0] != MAGIC:
        raise DamagedError("an ext attribute block is none")
    return list(_entries(block, 32, read_inode))


def _entries(area: bytes, at: int, read_inode: Callable[[int, int], bytes]) -> Iterator[Attribute]:
    while at + 4 <= len(area) and area[at : at + 4] != b"\0\0\0\0":
        length, index, offset, inode, size = struct.unpack_from("<BBHII", area, at)
        name = area[at + 16 : at + 16 + length]
        if len(name) != length or size > MAX_VALUE:
            raise DamagedError("an ext attribute is inconsistent")
        value = read_inode(inode, size) if inode else area[offset : offset + size]
        if len(value) != size:
            raise DamagedError("an ext attribute's value lies outside its area")
        yield index, name, value
        at += (16 + length + 3) & ~3


def named(attributes: list[Attribute]) -> dict[bytes, bytes]:
    """The attributes as listxattr(2) and getxattr(2) show them to root."""
    result: dict[bytes, bytes] = {}
    for index, name, value in attributes:
        if index in ACLS:
            result[PREFIXES[index]] = _acl(value)
        elif index in PREFIXES:
            result[PREFIXES[index] + name] = value
    return result


def _acl(value: bytes) -> bytes:
    if len(value) < 4 or struct.unpack_from("<I", value)[0] != 1:
        raise DamagedError("an ext access control list of an unknown version")
    entries = []
    at = 4
    while at < len(value):
        tag, permissions = struct.unpack_from("<HH", value, at)
        at += 4
        owner = 0
        if tag in (0x02, 0x08):
            owner = struct.unpack_from("<I", value, at)[0]
            at += 4
        entries.append((tag, permissions, owner))
    return acl_xattr(entries)
