"""XFS, versions 4 and 5.

Read here and not by dissect.xfs, which neither knows the log nor checks what it reads.  Source:
"XFS Algorithms & Data Structures"; Linux fs/xfs (xfs_iops.c and xfs_super.c for the numbers).
"""

from __future__ import annotations

import os
import stat as _stat
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import BinaryIO

from imgtools.direct.filesystems.base import Entry, NodeTree, as_blocks, read_exactly
from imgtools.direct.filesystems.posix import link_target
from imgtools.direct.filesystems.xfs_attr import Attributes
from imgtools.direct.filesystems.xfs_dir import Directories
from imgtools.direct.filesystems.xfs_log import require_clean
from imgtools.direct.filesystems.xfs_map import FORMAT_DEVICE, FORMAT_LOCAL, Inode, Mapper
from imgtools.direct.filesystems.xfs_super import (
    Super,
    free_space_tree_blocks,
    read_superblock,
)
from imgtools.direct.guard import guard
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError
from imgtools.model.files import FileTree, Stat, StatVFS

IO_SIZE = 4096  # st_blksize: the page size
MAX_TARGET = 1024
LINK_HEADER = 56
INODES_PER_CHUNK = 64
SET_ASIDE = 8  # blocks an allocation group that the kernel never gives away


def open_tree(streams: list[BinaryIO], subvolume: bytes | None = None) -> FileTree:
    """Open the XFS on the first of ``streams``.

    Raises UncleanError when the log needs replay, DirectUnsupportedError, DamagedError.
    """
    if subvolume is not None:
        raise DirectUnsupportedError("XFS has no subvolumes")
    with guard("the XFS filesystem"):
        return XfsTree(as_blocks(streams[0]))


class XfsTree(NodeTree[int]):
    """An XFS filesystem; nodes are inode numbers.  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._source = source
        self._super: Super = read_superblock(source)
        require_clean(source, self._super)
        self._mapper = Mapper(source, self._super)
        self._directory_reader = Directories(self._super, self._mapper)
        self._attribute_reader = Attributes(self._super, self._mapper)
        self._inode = lru_cache(2048)(self._read_inode)
        super().__init__("the XFS filesystem", self._super.root)
        if not _stat.S_ISDIR(self._node_stat(self._super.root).mode):
            raise DamagedError("the root of this XFS is no directory")

    def _read_inode(self, number: int) -> Inode:
        return Inode(self._source, self._super, number)

    def _node_stat(self, node: int) -> Stat:
        inode = self._inode(node)
        uid, gid = struct.unpack_from(">II", inode.raw, 8)
        if not inode.nlink:
            raise DamagedError(f"XFS inode {node} is in a directory but deleted")
        return Stat(
            ino=node,
            mode=inode.mode,
            nlink=inode.nlink,
            uid=uid,
            gid=gid,
            size=inode.size,
            rdev=self._device(inode),
            blksize=IO_SIZE,
            blocks=inode.blocks * (self._super.block_size // 512),
            atime_ns=inode.time(32),
            mtime_ns=inode.time(40),
            ctime_ns=inode.time(48),
        )

    def _device(self, inode: Inode) -> int:
        if not (_stat.S_ISCHR(inode.mode) or _stat.S_ISBLK(inode.mode)):
            return 0
        if inode.form != FORMAT_DEVICE:
            raise DamagedError(f"XFS inode {inode.number}: a device without numbers")
        number = struct.unpack_from(">I", inode.raw, inode.core)[0]
        return os.makedev(number >> 18 & 0x1FF, number & 0x3FFFF)

    def _node_entries(self, node: int) -> Iterable[Entry[int]]:
        return self._directory_reader.entries(self._inode(node))

    def _node_content(self, node: int, found: Stat) -> BlockStream:
        extents = self._mapper.extents(self._inode(node).data_fork(), node)
        return self._mapper.stream(extents, found.size)

    def _node_xattrs(self, node: int) -> dict[bytes, bytes]:
        return self._attribute_reader.read(self._inode(node).attribute_fork(), node)

    # -- symbolic links -----------------------------------------------------------------------

    def _node_readlink(self, node: int) -> bytes:
        inode = self._inode(node)
        fork = inode.data_fork()
        if not 0 < inode.size <= MAX_TARGET:
            raise DamagedError(f"XFS inode {node}: a symbolic link of {inode.size} bytes")
        if fork.form == FORMAT_LOCAL:
            if inode.size > len(fork.data):
                raise DamagedError(f"XFS inode {node}: a symbolic link that does not fit")
            return link_target(fork.data[: inode.size])
        target = b""
        for extent in self._mapper.extents(fork, node):
            at = self._super.block_address(extent.block, extent.length)
            length = min(extent.length * self._super.block_size, MAX_TARGET + 3 * LINK_HEADER)
            raw = read_exactly(self._source, at, length, "an XFS symbolic link")
            target += self._link_part(raw, inode, len(target))
        if len(target) != inode.size:
            raise DamagedError(f"XFS inode {node}: a symbolic link is cut off")
        return link_target(target)

    def _link_part(self, raw: bytes, inode: Inode, reached: int) -> bytes:
        left = inode.size - reached
        if self._super.version != 5:
            return raw[:left]
        magic, offset, count = struct.unpack_from(">4sII", raw)
        owner = struct.unpack_from(">Q", raw, 32)[0]
        if (magic, offset, owner) != (b"XSLM", reached, inode.number) or count > left:
            raise DamagedError(f"XFS inode {inode.number}: a symbolic link's block is wrong")
        return raw[LINK_HEADER : LINK_HEADER + count]

    # -- space --------------------------------------------------------------------------------

    def _space(self) -> StatVFS:
        """What xfs_fs_statfs of Linux 6.1 gives after mounting read-only."""
        sb = self._super
        if sb.free_blocks > sb.blocks or sb.free_inodes > sb.inodes:
            raise DirectUnsupportedError("the counters of this XFS are wrong")
        held = SET_ASIDE * sb.ag_count + free_space_tree_blocks(self._source, sb)
        free = max(0, sb.free_blocks - held)
        files = sb.inodes + (free << sb.inodes_per_block_log)
        if sb.inode_percent:
            unit = max(1, INODES_PER_CHUNK >> sb.inodes_per_block_log)
            most = sb.blocks * sb.inode_percent // 100 // unit * unit << sb.inodes_per_block_log
            files = min(files, most)
        files = max(files, sb.inodes)
        unused = max(0, files - (sb.inodes - sb.free_inodes))
        return StatVFS(
            bsize=sb.block_size,
            frsize=sb.block_size,
            blocks=sb.blocks - sb.log_blocks,
            bfree=free,
            bavail=free,
            files=files,
            ffree=unused,
            favail=unused,
        )
