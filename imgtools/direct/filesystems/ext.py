"""ext2, ext3 and ext4.

Read here and not by dissect.extfs, whose answers are not certain: it misplaces what follows an
unwritten extent, ends a directory silently at a bad record, drops the last inode, knows attributes
only in 256-byte inodes and no bigalloc.  Source: Documentation/filesystems/ext4.
"""

from __future__ import annotations

import stat as _stat
import struct
from collections.abc import Iterator
from functools import lru_cache

from imgtools.direct.filesystems import ext_xattr
from imgtools.direct.filesystems.base import Entry, Memory, NodeTree, read_exactly
from imgtools.direct.filesystems.ext_map import Mapper
from imgtools.direct.filesystems.ext_super import (
    COMPAT_JOURNAL,
    INCOMPAT_EXTENTS,
    INCOMPAT_FILETYPE,
    INCOMPAT_LARGEDIR,
    RO_BIGALLOC,
    RO_HUGE_FILE,
    RO_ORPHAN_PRESENT,
    Groups,
    overhead,
    read_superblock,
)
from imgtools.direct.filesystems.posix import decode_device, link_target
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError
from imgtools.model.files import FileKind, Stat, StatVFS

ROOT = 2
ENCRYPTED = 0x800
HUGE_FILE = 0x40000
EXTENTS = 0x80000
VERITY = 0x100000
EA_INODE = 0x200000
INLINE_DATA = 0x10000000
CASEFOLD = 0x40000000
REFUSED = ENCRYPTED | VERITY | CASEFOLD
KINDS: tuple[FileKind, ...] = ("u", "r", "d", "c", "b", "f", "s", "l")
MAX_DIRECTORY = 256 << 20
MAX_RESERVED = 4096  # clusters kept back for unwritten extents (ext4_set_resv_clusters)


class ExtTree(NodeTree[int]):
    """An ext filesystem; nodes are inode numbers.  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._source = source
        self._super = read_superblock(source)
        self._groups = Groups(source, self._super)
        self._raw = lru_cache(2048)(self._read_inode)
        super().__init__("the ext filesystem", ROOT)
        if not _stat.S_ISDIR(self._node_stat(ROOT).mode):
            raise DamagedError("the root of the ext filesystem is no directory")

    # -- inodes -------------------------------------------------------------------------------

    def _read_inode(self, number: int) -> bytes:
        sb = self._super
        if not 0 < number <= sb.inodes:
            raise DamagedError(f"ext inode {number} does not exist")
        group, index = divmod(number - 1, sb.inodes_per_group)
        at = self._groups[group].inode_table * sb.block_size + index * sb.inode_size
        return read_exactly(self._source, at, sb.inode_size, f"ext inode {number}")

    def _flags(self, raw: bytes) -> int:
        flags: int = struct.unpack_from("<I", raw, 32)[0]
        if flags & REFUSED:
            raise DirectUnsupportedError("an encrypted, verified or case-folding ext file")
        return flags

    def _size(self, raw: bytes, mode: int) -> int:
        low, high = struct.unpack_from("<I", raw, 4)[0], struct.unpack_from("<I", raw, 108)[0]
        if _stat.S_ISREG(mode) or (
            self._super.incompat & INCOMPAT_LARGEDIR and _stat.S_ISDIR(mode)
        ):
            return int(low | high << 32)
        return int(low)

    def _sectors(self, raw: bytes, flags: int) -> int:
        low, high = struct.unpack_from("<I", raw, 28)[0], struct.unpack_from("<H", raw, 116)[0]
        if not self._super.ro_compat & RO_HUGE_FILE:
            return int(low)
        sectors = int(low | high << 32)
        return sectors * (self._super.block_size // 512) if flags & HUGE_FILE else sectors

    def _extra(self, raw: bytes) -> int:
        """i_extra_isize: how many bytes of fields follow the first 128."""
        extra: int = struct.unpack_from("<H", raw, 128)[0] if len(raw) > 128 else 0
        if extra % 4 or 128 + extra > len(raw):
            raise DamagedError("an ext inode has a wrong extra size")
        return extra

    def _time(self, raw: bytes, low: int, high: int) -> int:
        seconds: int = struct.unpack_from("<i", raw, low)[0]
        if high + 4 > 128 + self._extra(raw):
            return seconds * 10**9
        extra: int = struct.unpack_from("<I", raw, high)[0]
        return (seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2)

    def _node_stat(self, node: int) -> Stat:
        raw = self._raw(node)
        mode, uid, _, _, _, _, _, gid, nlink = struct.unpack_from("<HHIIIIIHH", raw)
        uid_high, gid_high = struct.unpack_from("<HH", raw, 120)
        flags = self._flags(raw)
        if not mode or not nlink:
            raise DamagedError(f"ext inode {node} is in a directory but not in use")
        size = self._size(raw, mode)
        blocks = self._sectors(raw, flags)
        if flags & INLINE_DATA and _stat.S_ISREG(mode):
            blocks += -(-size // 512)  # ext4_file_getattr
        device = _stat.S_ISCHR(mode) or _stat.S_ISBLK(mode)
        return Stat(
            ino=node,
            mode=mode,
            nlink=nlink,
            uid=uid | uid_high << 16,
            gid=gid | gid_high << 16,
            size=size,
            rdev=decode_device(*struct.unpack_from("<II", raw, 40)) if device else 0,
            blksize=self._super.block_size,
            blocks=blocks,
            atime_ns=self._time(raw, 8, 140),
            mtime_ns=self._time(raw, 16, 136),
            ctime_ns=self._time(raw, 12, 132),
        )

    # -- content ------------------------------------------------------------------------------

    def _attributes(self, raw: bytes) -> list[ext_xattr.Attribute]:
        found = ext_xattr.in_inode(raw, self._value_of, extra=self._extra(raw))
        block = struct.unpack_from("<I", raw, 104)[0] | struct.unpack_from("<H", raw, 118)[0] << 32
        if block:
            if block >= self._super.blocks:
                raise DamagedError("an ext attribute block lies outside the filesystem")
            size = self._super.block_size
            data = read_exactly(self._source, block * size, size, "an ext attribute block")
            found += ext_xattr.in_block(data, self._value_of)
        return found

    def _value_of(self, number: int, size: int) -> bytes:
        raw = self._raw(number)
        flags = self._flags(raw)
        if not flags & EA_INODE or self._size(raw, _stat.S_IFREG) != size:
            raise DamagedError("an ext attribute's inode is inconsistent")
        return self._content(raw, flags, size).read_at(0, size)

    def _inline(self, raw: bytes) -> tuple[bytes, bytes]:
        """The two places of inline content: in the inode proper, and behind it."""
        rest = [
            value
            for index, name, value in ext_xattr.in_inode(
                raw, self._value_of, extra=self._extra(raw)
            )
            if (index, name) == (ext_xattr.SYSTEM, b"data")
        ]
        if len(rest) != 1:
            raise DamagedError("an ext file with inline content lacks a part of it")
        return raw[40:100], rest[0]

    def _content(self, raw: bytes, flags: int, size: int) -> BlockStream:
        if flags & INLINE_DATA:
            data = b"".join(self._inline(raw))
            if size > len(data):
                raise DamagedError("an ext file with inline content lacks a part of it")
            return Memory(data[:size])
        mapper = Mapper(self._source, self._super)
        return mapper.content(raw[40:100], size, extents=bool(flags & EXTENTS))

    def _node_content(self, node: int, found: Stat) -> BlockStream:
        raw = self._raw(node)
        return self._content(raw, self._flags(raw), found.size)

    def _node_readlink(self, node: int) -> bytes:
        raw = self._raw(node)
        flags = self._flags(raw)
        size = self._size(raw, _stat.S_IFLNK)
        acl = struct.unpack_from("<I", raw, 104)[0] | struct.unpack_from("<H", raw, 118)[0]
        own = (self._super.block_size << self._super.cluster_bits) // 512 if acl else 0
        if not flags & INLINE_DATA and self._sectors(raw, flags) == own:  # a fast link
            if not 0 < size < 60:
                raise DamagedError("an ext symbolic link has a wrong size")
            return link_target(raw[40 : 40 + size])
        if size > self._super.block_size:
            raise DamagedError("an ext symbolic link has a wrong size")
        return link_target(self._content(raw, flags, size).read_at(0, size))

    def _node_xattrs(self, node: int) -> dict[bytes, bytes]:
        return ext_xattr.named(self._attributes(self._raw(node)))

    # -- directories --------------------------------------------------------------------------

    def _node_entries(self, node: int) -> Iterator[Entry[int]]:
        raw = self._raw(node)
        flags = self._flags(raw)
        if flags & INLINE_DATA:
            first, rest = self._inline(raw)
            yield from self._records(first[4:])
            yield from self._records(rest)
            return
        block = self._super.block_size
        size = self._size(raw, _stat.S_IFDIR)
        if not size or size % block:
            raise DamagedError("an ext directory has a wrong size")
        if size > MAX_DIRECTORY:
            raise DirectUnsupportedError("an ext directory is too large")
        content = Mapper(self._source, self._super).content(
            raw[40:100], size, extents=bool(flags & EXTENTS)
        )
        for at in range(0, size, block):
            yield from self._records(content.read_at(at, block))

    def _records(self, block: bytes) -> Iterator[Entry[int]]:
        """The entries of one block; all of it must be well formed (ext4_check_dir_entry)."""
        typed = bool(self._super.incompat & INCOMPAT_FILETYPE)
        inodes = self._super.inodes
        at, end = 0, len(block)
        while at < end:
            if end - at < 8:
                raise DamagedError("an ext directory is inconsistent")
            inode, length, name_length, kind = struct.unpack_from("<IHBB", block, at)
            if length in (0, 65535) and end == 65536:
                length = 65536
            short = length < 8 + name_length or length < 12
            if short or length % 4 or at + length > end or inode > inodes:
                raise DamagedError("an ext directory is inconsistent")
            if inode:
                name = block[at + 8 : at + 8 + name_length]
                yield name, KINDS[kind] if typed and kind < len(KINDS) else "u", inode
            at += length

    # -- space --------------------------------------------------------------------------------

    def _space(self) -> StatVFS:
        sb = self._super
        if sb.last_orphan or sb.ro_compat & RO_ORPHAN_PRESENT:
            raise DirectUnsupportedError("ext orphans, which mounting would remove")
        free = files_free = 0
        for group in range(sb.groups):
            found = self._groups[group]
            free += found.free_clusters
            files_free += found.free_inodes
        free <<= sb.cluster_bits
        reserved = sb.reserved_blocks
        if sb.incompat & INCOMPAT_EXTENTS:
            clusters = min((sb.blocks >> sb.cluster_bits) // 50, MAX_RESERVED)
            reserved += clusters << sb.cluster_bits
        return StatVFS(
            bsize=sb.block_size,
            frsize=sb.block_size,
            blocks=sb.blocks - (self._overhead() << sb.cluster_bits),
            bfree=free,
            bavail=max(0, free - reserved),
            files=sb.inodes,
            ffree=files_free,
            favail=files_free,
        )

    def _overhead(self) -> int:
        total = overhead(self._super)
        if self._super.compat & COMPAT_JOURNAL and not self._super.ro_compat & RO_BIGALLOC:
            total += self._journal_blocks()
        return total

    def _journal_blocks(self) -> int:
        """The journal's length: jbd2 believes its superblock's s_maxlen."""
        raw = self._raw(self._super.journal_inode)
        size = self._size(raw, _stat.S_IFREG)
        head = self._content(raw, self._flags(raw), size).read_at(0, 20)
        magic, _, _, _, longest = struct.unpack(">5I", head)
        if magic != 0xC03B3998:
            raise DamagedError("the ext journal has no superblock")
        return int(min(size // self._super.block_size, longest))
