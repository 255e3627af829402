"""Extended attributes of XFS: in the inode, in leaf blocks, values in blocks of their own.

Source: XFS Algorithms & Data Structures, "Extended Attributes"; ACLs: fs/xfs/xfs_acl.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imgtools.direct.filesystems.posix import ACL_NAMES, acl_xattr
from imgtools.direct.filesystems.xfs_fork import LOCAL, Fork, ForkReader
from imgtools.direct.filesystems.xfs_super import Superblock
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

FLAG_LOCAL, FLAG_ROOT, FLAG_SECURE, FLAG_PARENT, FLAG_INCOMPLETE = 1, 2, 4, 8, 0x80
LEAVES = (0xFBEE, 0x3BEE)
NODES = (0xFEBE, 0x3EBE)
MAX_LEAVES = 4096
MAX_DEPTH = 8
MAX_VALUE = 1 << 16
REMOTE_MAGIC = 0x5841524D
REMOTE_HEADER = 56
ACLS = {b"SGI_ACL_FILE": ACL_NAMES[0], b"SGI_ACL_DEFAULT": ACL_NAMES[1]}

Attribute = tuple[int, bytes, bytes]  # flags, name, value


def read(fork: Fork, forks: ForkReader, superblock: Superblock) -> dict[bytes, bytes]:
    """The attributes of a fork as listxattr(2) and getxattr(2) show them to root."""
    if fork.format == LOCAL:
        found = list(_short(fork.data))
    elif fork.extents == 0:
        found = []
    else:
        found = list(_Leaves(fork, forks, superblock).attributes())
    result: dict[bytes, bytes] = {}
    for flags, name, value in found:
        if flags & (FLAG_INCOMPLETE | FLAG_PARENT):
            continue
        if flags & FLAG_ROOT and name in ACLS:
            result[ACLS[name]] = _acl(value)
        prefix = b"trusted." if flags & FLAG_ROOT else b"user."
        result[(b"security." if flags & FLAG_SECURE else prefix) + name] = value
    return result


def _short(data: bytes) -> Iterator[Attribute]:
    size, count = struct.unpack_from(">HB", data)
    at = 4
    for _ in range(count):
        names, values, flags = data[at : at + 3]
        end = at + 3 + names + values
        if end > min(size, len(data)):
            raise DamagedError("XFS attributes in an inode are inconsistent")
        yield flags, data[at + 3 : at + 3 + names], data[at + 3 + names : end]
        at = end


class _Leaves:
    def __init__(self, fork: Fork, forks: ForkReader, superblock: Superblock) -> None:
        self._five = superblock.version == 5
        self._block = superblock.block_size
        extents = forks.extents(fork)
        size = (extents[-1][0] + extents[-1][2]) * self._block
        self._stream: BlockStream = forks.stream(fork, size)

    def _read(self, index: int) -> bytes:
        data = self._stream.read_at(index * self._block, self._block)
        if len(data) != self._block:
            raise DamagedError("XFS attributes lie outside their fork")
        return data

    def attributes(self) -> Iterator[Attribute]:
        """Every attribute, from the leftmost leaf on along the chain of leaves."""
        index = self._leftmost()
        for _ in range(MAX_LEAVES):
            block = self._read(index)
            yield from self._leaf(block)
            index = struct.unpack_from(">I", block)[0]
            if index == 0:
                return
        raise DamagedError("XFS attribute leaves form a loop")

    def _leftmost(self) -> int:
        index = 0
        for _ in range(MAX_DEPTH):
            block = self._read(index)
            if struct.unpack_from(">H", block, 8)[0] not in NODES:
                return index
            index = struct.unpack_from(">I", block, (64 if self._five else 16) + 4)[0]
        raise DamagedError("the XFS attribute tree is too deep")

    def _leaf(self, block: bytes) -> Iterator[Attribute]:
        info = 56 if self._five else 12
        entries = 80 if self._five else 32
        if struct.unpack_from(">H", block, 8)[0] not in LEAVES:
            raise DamagedError("an XFS attribute leaf is none")
        count = struct.unpack_from(">H", block, info)[0]
        if entries + count * 8 > len(block):
            raise DamagedError("an XFS attribute leaf is inconsistent")
        for at in range(entries, entries + count * 8, 8):
            _, place, flags = struct.unpack_from(">IHB", block, at)
            if flags & FLAG_LOCAL:
                values, names = struct.unpack_from(">HB", block, place)
                start = place + 3
                value = block[start + names : start + names + values]
            else:
                index, values, names = struct.unpack_from(">IIB", block, place)
                start = place + 9
                value = b"" if flags & FLAG_INCOMPLETE else self._remote(index, values)
            name = block[start : start + names]
            if len(name) != names or (len(value) != values and not flags & FLAG_INCOMPLETE):
                raise DamagedError("an XFS attribute leaf is inconsistent")
            yield flags, name, value

    def _remote(self, index: int, length: int) -> bytes:
        if length > MAX_VALUE:
            raise DamagedError("an XFS attribute is too long")
        if not self._five:
            return self._stream.read_at(index * self._block, length)
        value = b""
        while len(value) < length:
            block = self._read(index)
            magic, offset, count = struct.unpack_from(">III", block)
            if magic != REMOTE_MAGIC or offset != len(value) or not count:
                raise DamagedError("an XFS attribute's value is inconsistent")
            value += block[REMOTE_HEADER : REMOTE_HEADER + count]
            index += 1
        return value


def _acl(value: bytes) -> bytes:
    count = struct.unpack_from(">I", value)[0]
    if len(value) < 4 + count * 12:
        raise DamagedError("an XFS access control list is cut short")
    entries = []
    for at in range(4, 4 + count * 12, 12):
        tag, owner, permissions = struct.unpack_from(">IIH", value, at)
        entries.append((tag, permissions, owner))
    return acl_xattr(entries)
