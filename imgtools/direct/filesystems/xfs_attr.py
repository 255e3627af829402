"""Extended attributes of XFS: inside the inode, in leaves, values in blocks of their own.

Source: "XFS Algorithms & Data Structures", chapter Extended Attributes; Linux fs/xfs/xfs_xattr.c
for the names that the kernel shows, xfs_acl.c for access control lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.filesystems.posix import acl_xattr
from imgtools.direct.filesystems.xfs_map import FORMAT_LOCAL, Fork, Mapper
from imgtools.direct.filesystems.xfs_super import Super
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

LOCAL = 0x01
ROOT = 0x02
SECURE = 0x04
INCOMPLETE = 0x80
KNOWN = LOCAL | ROOT | SECURE | INCOMPLETE
MAX_VALUE = 65536
MAX_BLOCKS = 4096
MAX_DEPTH = 5
ACLS = {
    b"SGI_ACL_FILE": b"system.posix_acl_access",
    b"SGI_ACL_DEFAULT": b"system.posix_acl_default",
}
# per version: size of the block's header up to the counts, of a leaf's header, of a node's header
LEAF_MAGIC = {4: 0xFBEE, 5: 0x3BEE}
NODE_MAGIC = {4: 0xFEBE, 5: 0x3EBE}
COUNT_AT = {4: 12, 5: 56}
LEAF_HEADER = {4: 32, 5: 80}
NODE_HEADER = {4: 16, 5: 64}
REMOTE_HEADER = {4: 0, 5: 56}

Attribute = tuple[int, bytes, bytes]


class Attributes:
    """Reads the attribute fork of inodes."""

    def __init__(self, sb: Super, mapper: Mapper) -> None:
        self._super = sb
        self._mapper = mapper
        self._version = sb.version

    def read(self, fork: Fork | None, owner: int) -> dict[bytes, bytes]:
        """All attributes by the names that the kernel shows to root."""
        found: dict[bytes, bytes] = {}
        if fork is None:
            return found
        for flags, name, value in self._stored(fork, owner):
            if flags & INCOMPLETE:
                continue
            if flags & ~KNOWN or not name:
                raise DirectUnsupportedError(f"XFS inode {owner}: an unknown kind of attribute")
            if flags & ROOT and name in ACLS:
                found[ACLS[name]] = _acl(value)
            prefix = b"trusted." if flags & ROOT else b"security." if flags & SECURE else b"user."
            found[prefix + name] = value
        return found

    def _stored(self, fork: Fork, owner: int) -> Iterator[Attribute]:
        if fork.form == FORMAT_LOCAL:
            yield from _short(fork.data, owner)
            return
        extents = self._mapper.extents(fork, owner)
        if not extents:
            return
        if any(extent.unwritten for extent in extents):
            raise DamagedError(f"XFS inode {owner}: its attributes were never written")
        end = extents[-1].offset + extents[-1].length
        stream = self._mapper.stream(extents, end * self._super.block_size)
        yield from self._leaves(stream, owner)

    def _block(self, stream: BlockStream, index: int, owner: int) -> bytes:
        size = self._super.block_size
        raw = read_exactly(stream, index * size, size, "a block of XFS attributes")
        if self._version == 5 and struct.unpack_from(">16sQ", raw, 32) != (
            self._super.meta_uuid,
            owner,
        ):
            raise DamagedError(f"XFS inode {owner}: a block of attributes belongs elsewhere")
        return raw

    def _leaves(self, stream: BlockStream, owner: int) -> Iterator[Attribute]:
        index = 0
        for _ in range(MAX_DEPTH + 1):
            raw = self._block(stream, index, owner)
            magic = struct.unpack_from(">H", raw, 8)[0]
            if magic != NODE_MAGIC[self._version]:
                break
            if not struct.unpack_from(">H", raw, COUNT_AT[self._version])[0]:
                raise DamagedError(f"XFS inode {owner}: an empty node of attributes")
            index = struct.unpack_from(">I", raw, NODE_HEADER[self._version] + 4)[0]
        for _ in range(MAX_BLOCKS):
            raw = self._block(stream, index, owner)
            following, _, magic = struct.unpack_from(">IIH", raw)
            if magic != LEAF_MAGIC[self._version]:
                raise DamagedError(f"XFS inode {owner}: no leaf of attributes")
            yield from self._leaf(raw, stream, owner)
            if not following:
                return
            index = following
        raise DirectUnsupportedError(f"XFS inode {owner} has too many attributes")

    def _leaf(self, raw: bytes, stream: BlockStream, owner: int) -> Iterator[Attribute]:
        count = struct.unpack_from(">H", raw, COUNT_AT[self._version])[0]
        start = LEAF_HEADER[self._version]
        if start + count * 8 > len(raw):
            raise DamagedError(f"XFS inode {owner}: more attributes than fit")
        for _, at, flags, _ in struct.iter_unpack(">IHBB", raw[start : start + count * 8]):
            if flags & INCOMPLETE:
                continue
            if flags & LOCAL:
                length, size = struct.unpack_from(">HB", raw, at)
                name, value = _cut(raw, at + 3, size, length)
            else:
                block, length, size = struct.unpack_from(">IIB", raw, at)
                name, _ = _cut(raw, at + 9, size, 0)
                value = self._remote(stream, block, length, owner)
            yield flags, name, value

    def _remote(self, stream: BlockStream, block: int, length: int, owner: int) -> bytes:
        if length > MAX_VALUE:
            raise DamagedError(f"XFS inode {owner}: an attribute of {length} bytes")
        size, header = self._super.block_size, REMOTE_HEADER[self._version]
        value = b""
        while len(value) < length:
            raw = read_exactly(stream, block * size, size, "an XFS attribute's value")
            wanted = min(size - header, length - len(value))
            if header:
                magic, offset, count = struct.unpack_from(">4sII", raw)
                own = struct.unpack_from(">Q", raw, 32)[0]
                if (magic, offset, count, own) != (b"XARM", len(value), wanted, owner):
                    raise DamagedError(f"XFS inode {owner}: an attribute's value is wrong")
            value += raw[header : header + wanted]
            block += 1
        return value


def _cut(raw: bytes, at: int, name: int, value: int) -> tuple[bytes, bytes]:
    if at + name + value > len(raw):
        raise DamagedError("an XFS attribute reaches beyond its block")
    return raw[at : at + name], raw[at + name : at + name + value]


def _short(data: bytes, owner: int) -> Iterator[Attribute]:
    total, count = struct.unpack_from(">HB", data)
    if not 4 <= total <= len(data):
        raise DamagedError(f"XFS inode {owner}: its attributes do not fit")
    data, at = data[:total], 4
    for _ in range(count):
        size, length, flags = struct.unpack_from(">BBB", data, at)
        name, value = _cut(data, at + 3, size, length)
        yield flags, name, value
        at += 3 + size + length


def _acl(value: bytes) -> bytes:
    count = struct.unpack_from(">I", value)[0]
    if 4 + count * 12 > len(value):
        raise DamagedError("an XFS access control list is cut off")
    entries = struct.iter_unpack(">IIHH", value[4 : 4 + count * 12])
    return acl_xattr([(tag, permissions, owner) for tag, owner, permissions, _ in entries])
