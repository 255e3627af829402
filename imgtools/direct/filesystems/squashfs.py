"""squashfs 4.0, compressed with gzip, lzo, xz, lz4 or zstd.

Read here and not by dissect.squashfs, which can loop on an empty metadata block and inflates
without a bound.  Source: Linux Documentation/filesystems/squashfs.rst and fs/squashfs (inode.c and
super.c for what stat and statvfs show).
"""

from __future__ import annotations

import os
import stat as _stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from imgtools.direct.filesystems.base import Entry, NodeTree, read_exactly
from imgtools.direct.filesystems.squashfs_data import (
    NO_FRAGMENT,
    WHAT,
    Blocks,
    FileData,
    Metadata,
    Reader,
    read_super,
)
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError
from imgtools.model.files import FileKind, Stat, StatVFS

DIRECTORY, FILE, LINK, BLOCK, CHARACTER, FIFO, SOCKET = range(1, 8)
LONG = 7  # a long inode's type is the short one's plus this
KINDS: dict[int, FileKind] = {1: "d", 2: "r", 3: "l", 4: "b", 5: "c", 6: "f", 7: "s"}
MODES = {
    1: _stat.S_IFDIR,
    2: _stat.S_IFREG,
    3: _stat.S_IFLNK,
    4: _stat.S_IFBLK,
    5: _stat.S_IFCHR,
    6: _stat.S_IFIFO,
    7: _stat.S_IFSOCK,
}
NOTHING = (1 << 64) - 1
NO_XATTR = 0xFFFFFFFF
PREFIXES = {0: b"user.", 1: b"trusted.", 2: b"security."}
MAX_XATTRS = 1000
DEVICE_BLOCK = 1024  # st_blksize: SQUASHFS_DEVBLK_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """An inode, and where in the metadata what follows it is (link target, block list)."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    nlink: int = 1
    size: int = 0
    start: int = 0
    offset: int = 0
    fragment: int = NO_FRAGMENT
    sparse: int = 0
    device: int = 0
    xattr: int = NO_XATTR
    rest: tuple[int, int] = (0, 0)
    long: bool = False


class SquashfsTree(NodeTree[int]):
    """A squashfs; nodes are inode references (block and offset).  Implements `model.FileTree`."""

    def __init__(self, source: BlockStream) -> None:
        self._source = source
        self._super = read_super(source)
        self._reader = Reader(source, self._super)
        self._inode = lru_cache(4096)(self._read_inode)
        self._identity = lru_cache(1024)(self._read_identity)
        super().__init__(WHAT, self._super.root)
        if self._inode(self._super.root).kind != DIRECTORY:
            raise DamagedError(f"the root of {WHAT} is no directory")

    # -- inodes -----------------------------------------------------------------------------------

    def _read_inode(self, reference: int) -> Inode:
        metadata = self._reader.at(self._super.inode_table, reference)
        kind, mode, uid, gid, mtime, number = metadata.unpack("<HHHHII")
        if not 1 <= kind <= 2 * LONG:
            raise DamagedError(f"{WHAT}: an inode of kind {kind}")
        is_long = kind > LONG
        kind -= LONG if is_long else 0
        fields = self._fields(kind, is_long=is_long, metadata=metadata)
        return Inode(
            kind=kind,
            mode=mode & 0o7777,
            uid=uid,
            gid=gid,
            mtime=mtime,
            number=number,
            rest=metadata.position,
            long=is_long,
            **fields,
        )

    @staticmethod
    def _fields(kind: int, *, is_long: bool, metadata: Metadata) -> dict[str, int]:
        if kind == DIRECTORY:
            if is_long:
                nlink, size, start, _, _, offset, xattr = metadata.unpack("<IIIIHHI")
            else:
                start, nlink, size, offset, _ = metadata.unpack("<IIHHI")
                xattr = NO_XATTR
            return {"nlink": nlink, "size": size, "start": start, "offset": offset, "xattr": xattr}
        names: tuple[str, ...]
        if kind == FILE and is_long:
            names = ("start", "size", "sparse", "nlink", "fragment", "offset", "xattr")
            form = "<QQQIIII"
        elif kind == FILE:
            names, form = ("start", "fragment", "offset", "size"), "<IIII"
        elif kind == LINK:  # its attributes stand behind the target
            names, form = ("nlink", "size"), "<II"
        else:
            has_device = kind in (BLOCK, CHARACTER)
            names, form = (("nlink", "device"), "<II") if has_device else (("nlink",), "<I")
            if is_long:
                names, form = (*names, "xattr"), form + "I"
        return dict(zip(names, metadata.unpack(form), strict=True))

    def _read_identity(self, index: int) -> int:
        if index >= self._super.ids:
            raise DamagedError(f"{WHAT}: an owner beyond the table")
        raw = self._reader.table(self._super.id_table, index, 4)
        return int.from_bytes(raw, "little")

    def _number(self, node: int) -> int:
        return self._inode(node).number

    def _node_stat(self, node: int) -> Stat:
        inode = self._inode(node)
        if inode.size >= 1 << 62:
            raise DamagedError(f"{WHAT}: a file of {inode.size} bytes")
        time = inode.mtime * 1_000_000_000
        device = inode.device
        return Stat(
            ino=inode.number,
            mode=MODES[inode.kind] | inode.mode,
            nlink=inode.nlink,
            uid=self._identity(inode.uid),
            gid=self._identity(inode.gid),
            size=inode.size,
            rdev=os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00),
            blksize=DEVICE_BLOCK,
            blocks=self._sectors(inode),
            atime_ns=time,
            mtime_ns=time,
            ctime_ns=time,
        )

    def _sectors(self, inode: Inode) -> int:
        """st_blocks, which count the attributes as well (squashfs_read_inode)."""
        sectors = -(-(inode.size - inode.sparse) // 512) if inode.kind == FILE else 0
        place = self._xattr_place(inode)
        return sectors if place is None else sectors + (place[3] - 1 >> 9) + 1

    # -- content ----------------------------------------------------------------------------------

    def _node_entries(self, node: int) -> Iterator[Entry[int]]:
        inode = self._inode(node)
        left = inode.size - 3  # "." and ".." are counted, and not there
        if left <= 0:
            return
        reference = inode.start << 16 | inode.offset
        metadata = self._reader.at(self._super.directory_table, reference)
        while left > 0:
            count, start, _ = metadata.unpack("<III")
            left -= 12
            if count > 256:
                raise DamagedError(f"{WHAT}: a bad directory")
            for _ in range(count + 1):
                offset, _, kind, length = metadata.unpack("<HhHH")
                name = metadata.read(length + 1)
                left -= 8 + len(name)
                if kind not in KINDS or left < 0:
                    raise DamagedError(f"{WHAT}: a bad directory")
                yield name, KINDS[kind], start << 16 | offset

    def _node_readlink(self, node: int) -> bytes:
        inode = self._inode(node)
        if not 0 < inode.size <= 65535:
            raise DamagedError(f"{WHAT}: a symbolic link of {inode.size} bytes")
        return self._reader.seek(inode.rest).read(inode.size)

    def _node_content(self, node: int, found: Stat) -> BlockStream:
        inode = self._inode(node)
        whole, tail = divmod(found.size, self._super.block)
        has_fragment = inode.fragment != NO_FRAGMENT
        count = whole if has_fragment or not tail else whole + 1
        if count > self._source.size:
            raise DamagedError(f"{WHAT}: a file larger than its blocks can be")
        raw = self._reader.seek(inode.rest).read(4 * count)
        sizes = struct.unpack(f"<{count}I", raw)
        fragment = (inode.fragment, inode.offset) if has_fragment and tail else None
        blocks = Blocks(start=inode.start, sizes=sizes, fragment=fragment)
        return FileData(self._reader, found.size, blocks)

    def _xattr_place(self, inode: Inode) -> tuple[int, int, int, int] | None:
        """Where the attributes are (base, reference), how many, and their size in bytes."""
        index = inode.xattr
        if inode.kind == LINK and inode.long:
            metadata = self._reader.seek(inode.rest)
            metadata.read(inode.size)
            (index,) = metadata.unpack("<I")
        if index == NO_XATTR or self._super.xattr_table == NOTHING:
            return None
        table = read_exactly(self._source, self._super.xattr_table, 16, WHAT)
        values, count = struct.unpack_from("<QI", table)
        if index >= count:
            raise DamagedError(f"{WHAT}: attributes beyond the table")
        raw = self._reader.table(self._super.xattr_table + 16, index, 16)
        reference, entries, size = struct.unpack_from("<QII", raw)
        return values, reference, entries, size

    def _node_xattrs(self, node: int) -> dict[bytes, bytes]:
        place = self._xattr_place(self._inode(node))
        if place is None:
            return {}
        values, reference, entries, _ = place
        if entries > MAX_XATTRS:
            raise DirectUnsupportedError(f"{WHAT}: a file of {entries} attributes")
        return self._read_xattrs(values, reference, entries)

    def _read_xattrs(self, base: int, reference: int, count: int) -> dict[bytes, bytes]:
        metadata = self._reader.at(base, reference)
        found = {}
        for _ in range(count):
            kind, length = metadata.unpack("<HH")
            prefix = PREFIXES.get(kind & 0xFF)
            if prefix is None:
                raise DamagedError(f"{WHAT}: an attribute of kind {kind}")
            name = prefix + metadata.read(length)
            (size,) = metadata.unpack("<I")
            value = metadata.read(size)
            if kind & 0x100:  # the value is elsewhere
                other = self._reader.at(base, int.from_bytes(value[:8], "little"))
                (size,) = other.unpack("<I")
                value = other.read(size)
            found[name] = value
        return found

    def _space(self) -> StatVFS:
        """As squashfs_statfs: full, whatever it holds."""
        return StatVFS(
            bsize=self._super.block,
            frsize=self._super.block,
            blocks=-(-self._super.used // self._super.block),
            bfree=0,
            bavail=0,
            files=self._super.inodes,
            ffree=0,
            favail=0,
            namemax=256,
        )
