"""Extended attributes of ext inodes: in the inode, and in one block of their own.

Format: Linux kernel, Documentation/filesystems/ext4/attributes.rst; ACLs are stored shorter than
getxattr(2) shows them (fs/ext4/acl.c), and are converted here.
"""

from __future__ import annotations

import struct

from imgtools.errors import DamagedError, DirectUnsupportedError

_MAGIC = 0xEA020000
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_PREFIXES = {
    1: b"user.",
    2: _ACCESS,
    3: _DEFAULT,
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
}
_USER, _GROUP = 0x02, 0x08
_UNDEFINED = 0xFFFFFFFF


def read_attributes(inside: bytes, outside: bytes) -> dict[bytes, bytes]:
    """Attributes by full name, from the inode's tail and the attribute block (either empty).

    Raises DamagedError, and DirectUnsupportedError for values kept in inodes of their own.
    """
    found: dict[bytes, bytes] = {}
    if len(inside) >= 4 and inside[:4] == _MAGIC.to_bytes(4, "little"):
        _read(inside, 4, 4, found)
    if outside:
        if struct.unpack_from("<I", outside)[0] != _MAGIC:
            raise DamagedError("ext: a bad attribute block")
        _read(outside, 32, 0, found)
    return found


def _read(area: bytes, start: int, base: int, found: dict[bytes, bytes]) -> None:
    offset = start
    while offset + 4 <= len(area) and area[offset : offset + 4] != b"\0\0\0\0":
        if offset + 16 > len(area):
            raise DamagedError("ext: attributes end early")
        length, index, where, inode, size = struct.unpack_from("<BBHII", area, offset)
        name = area[offset + 16 : offset + 16 + length]
        prefix = _PREFIXES.get(index)
        if prefix is None or len(name) != length or base + where + size > len(area):
            raise DamagedError("ext: a bad attribute")
        if inode:
            raise DirectUnsupportedError("ext: attribute values in inodes of their own")
        value = area[base + where : base + where + size]
        full = prefix + name
        found[full] = _acl(value) if full in (_ACCESS, _DEFAULT) else value
        offset += 16 + (length + 3 & ~3)


def _acl(value: bytes) -> bytes:
    """An ACL as getxattr(2) gives it (version 2) from its form on disk (version 1)."""
    if len(value) < 4 or struct.unpack_from("<I", value)[0] != 1:
        raise DamagedError("ext: a bad ACL")
    result, offset = struct.pack("<I", 2), 4
    while offset < len(value):
        if offset + 4 > len(value):
            raise DamagedError("ext: a bad ACL")
        tag, permission = struct.unpack_from("<HH", value, offset)
        identity, step = _UNDEFINED, 4
        if tag in (_USER, _GROUP):
            if offset + 8 > len(value):
                raise DamagedError("ext: a bad ACL")
            identity, step = struct.unpack_from("<I", value, offset + 4)[0], 8
        result += struct.pack("<HHI", tag, permission, identity)
        offset += step
    return result
