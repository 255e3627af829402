"""ext2, ext3 and ext4 over dissect.extfs, with every walk checked.

dissect gives superblock, group descriptors and inodes.  Directories, extents and attributes are
walked here: dissect's walks end silently at what they cannot read, skip the last inode, and
misplace data that follows a hole before an unwritten extent.

Format: Linux kernel, Documentation/filesystems/ext4 and fs/ext4.
"""

from __future__ import annotations

import io
import os
import stat as _stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from imgtools.direct.filesystems.base import Tree
from imgtools.direct.filesystems.ext_attributes import read_attributes
from imgtools.direct.filesystems.ext_blocks import Mapping, Run
from imgtools.direct.guard import guard
from imgtools.direct.importing import import_only
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError
from imgtools.model import DirEntry, FileKind, FileTree, Stat, StatVFS

# s_feature_incompat
_RECOVER, _EXTENTS, _64BIT, _INLINE_DATA = 0x4, 0x40, 0x80, 0x8000
# filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data
_READABLE = (
    0x2 | _RECOVER | _EXTENTS | _64BIT | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | _INLINE_DATA
)
# s_feature_compat, s_feature_ro_compat
_HAS_JOURNAL, _SPARSE_SUPER2 = 0x4, 0x200
_SPARSE_SUPER, _HUGE_FILE, _BIGALLOC = 0x1, 0x8, 0x200
_FILETYPE, _LARGEDIR = 0x2, 0x4000
_ERROR_FS = 0x2
# i_flags
_HUGE_FILE_FL, _ENCRYPT_FL, _EXTENTS_FL = 0x40000, 0x800, 0x80000
_VERITY_FL, _INLINE_DATA_FL, _CASEFOLD_FL = 0x100000, 0x10000000, 0x40000000

_KINDS: dict[int, FileKind] = {1: "r", 2: "d", 3: "c", 4: "b", 5: "f", 6: "s", 7: "l"}
_MAX_DIRECTORY = 1 << 31
_MAX_LINK = 4096
_RESERVED_MAX = 4096  # clusters that ext4 keeps for itself: ext4_set_resv_clusters


def open_tree(streams: list[BinaryIO], subvolume: bytes | None) -> FileTree:
    """Open the filesystem on the one stream given."""
    if len(streams) != 1 or subvolume is not None:
        raise DirectUnsupportedError("ext: one device and no subvolumes")
    return ExtTree(streams[0])


@dataclass(slots=True)
class Inode:
    """An inode number and, once read, its fields."""

    number: int
    raw: Any = None
    stat: Stat | None = None


class ExtTree(Tree[Inode]):
    """Read-only view of one ext filesystem.  Raises UncleanError if its journal needs replay."""

    kind = "ext"

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        with guard("ext: superblock"):
            parser = import_only("dissect.extfs.extfs")
            self._fs: Any = parser.ExtFS(stream)
        self._sb: Any = self._fs.sb
        self._block_size: int = self._fs.block_size
        self._inodes: dict[int, Inode] = {}
        self._check_features()

    def _check_features(self) -> None:
        sb = self._sb
        if sb.s_feature_incompat & _RECOVER:
            raise UncleanError("ext: the journal needs replay (needs_recovery)")
        if sb.s_state & _ERROR_FS:
            raise UncleanError("ext: the filesystem is marked as having errors")
        if unknown := sb.s_feature_incompat & ~_READABLE:
            raise DirectUnsupportedError(f"ext: feature {unknown:#x} cannot be read")
        if sb.s_rev_level == 0:
            raise DirectUnsupportedError("ext: revision 0")
        # dissect tells the size of a group descriptor by other rules than the kernel's.
        wide = 64 if sb.s_feature_incompat & _64BIT else 32
        if wide == 64 and not sb.s_feature_incompat & _EXTENTS:
            raise DirectUnsupportedError("ext: 64bit without extents")
        if self._fs._group_desc_size != wide:  # noqa: SLF001 (dissect has no accessor)
            raise DirectUnsupportedError("ext: group descriptors of an odd size")
        size = self._fs.block_count * self._block_size
        if size > cast("Any", self._stream).size:
            raise DamagedError("ext: larger than the volume it lies on")

    # -- nodes ------------------------------------------------------------------------------------

    def _root(self) -> Inode:
        return self._inode(2)

    def _identity(self, node: Inode) -> int:
        return node.number

    def _inode(self, number: int) -> Inode:
        if len(self._inodes) > 100_000:
            self._inodes.clear()
        return self._inodes.setdefault(number, Inode(number))

    def _raw(self, node: Inode) -> Any:
        if node.raw is None:
            if not 0 < node.number <= self._sb.s_inodes_count:
                raise DamagedError(f"ext: inode {node.number} does not exist")
            raw = self._fs.get_inode(node.number).inode
            if raw.i_mode == 0:
                raise DamagedError(f"ext: inode {node.number} is not in use")
            if raw.i_flags & _ENCRYPT_FL:
                raise DirectUnsupportedError("ext: encrypted files")
            node.raw = raw
        return node.raw

    def _stat(self, node: Inode) -> Stat:
        if node.stat is None:
            node.stat = self._make_stat(node.number, self._raw(node))
        return node.stat

    def _make_stat(self, number: int, raw: Any) -> Stat:
        mode = raw.i_mode
        return Stat(
            ino=number,
            mode=mode,
            nlink=raw.i_links_count,
            uid=raw.i_uid | raw.i_uid_high << 16,
            gid=raw.i_gid | raw.i_gid_high << 16,
            size=self._size(raw),
            rdev=_device(raw.i_block) if _stat.S_ISBLK(mode) or _stat.S_ISCHR(mode) else 0,
            blksize=self._block_size,
            blocks=self._blocks(raw),
            atime_ns=self._time(raw, "atime", 16),
            mtime_ns=self._time(raw, "mtime", 12),
            ctime_ns=self._time(raw, "ctime", 8),
        )

    def _size(self, raw: Any) -> int:
        size: int = raw.i_size_lo
        is_dir = _stat.S_ISDIR(raw.i_mode)
        if _stat.S_ISREG(raw.i_mode) or (is_dir and self._sb.s_feature_incompat & _LARGEDIR):
            size |= raw.i_size_high << 32
        if size >= 1 << 60:
            raise DamagedError(f"ext: a file of {size} bytes")
        return size

    def _blocks(self, raw: Any) -> int:
        if not self._sb.s_feature_ro_compat & _HUGE_FILE:
            return int(raw.i_blocks_lo)
        blocks: int = raw.i_blocks_lo | raw.i_blocks_high << 32
        unit = self._block_size // 512 if raw.i_flags & _HUGE_FILE_FL else 1
        return blocks * unit

    def _time(self, raw: Any, name: str, end: int) -> int:
        seconds = getattr(raw, f"i_{name}")
        seconds -= (seconds & 0x80000000) << 1  # stored as a signed number
        # The extra field is there if the inode's own extra size reaches beyond it.
        if self._sb.s_inode_size <= 128 or raw.i_extra_isize < end:
            return int(seconds) * 1_000_000_000
        extra = getattr(raw, f"i_{name}_extra")
        return int(seconds + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)

    # -- content ----------------------------------------------------------------------------------

    def _content(self, node: Inode) -> BinaryIO:
        raw, size = self._raw(node), self._stat(node).size
        if raw.i_flags & _VERITY_FL:
            raise DirectUnsupportedError("ext: fs-verity files")
        if raw.i_flags & _INLINE_DATA_FL:
            return cast("BinaryIO", io.BytesIO(self._inline(node, raw, size)))
        return self._mapped(raw, size)

    def _mapped(self, raw: Any, size: int) -> BinaryIO:
        mapping = Mapping(self._stream, self._block_size, self._fs.block_count)
        wanted = -(-size // self._block_size)
        block = bytes(raw.i_block)
        extents = bool(raw.i_flags & _EXTENTS_FL)
        runs = mapping.extents(block, wanted) if extents else mapping.indirect(block, wanted)
        stream = import_only("dissect.util.stream").RunlistStream
        return cast("BinaryIO", stream(self._stream, _pairs(runs), size, self._block_size))

    def _inline(self, node: Inode, raw: Any, size: int) -> bytes:
        data = bytes(raw.i_block)
        if size > len(data):
            data += self._all_attributes(node).get(b"system.data", b"")
        if size > len(data):
            raise DamagedError(f"ext: inode {node.number} holds less inline data than its size")
        return data[:size]

    def _link(self, node: Inode) -> bytes:
        raw, size = self._raw(node), self._stat(node).size
        if not 0 < size < _MAX_LINK:
            raise DamagedError(f"ext: a symbolic link of {size} bytes")
        if raw.i_flags & _INLINE_DATA_FL:
            return self._inline(node, raw, size)
        if size < 60 and not raw.i_flags & _EXTENTS_FL:
            return bytes(raw.i_block)[:size]
        data = self._mapped(raw, size).read(size)
        if b"\0" in data:
            raise DamagedError("ext: a symbolic link with a NUL")
        return data

    # -- directories ------------------------------------------------------------------------------

    def _entries(self, node: Inode) -> Iterable[tuple[DirEntry, Inode]]:
        raw, size = self._raw(node), self._stat(node).size
        if raw.i_flags & (_CASEFOLD_FL | _INLINE_DATA_FL):
            raise DirectUnsupportedError("ext: case-folded or inline directories")
        if size % self._block_size or size > _MAX_DIRECTORY:
            raise DamagedError(f"ext: a directory of {size} bytes")
        stream = self._mapped(raw, size)
        for _ in range(size // self._block_size):
            block = stream.read(self._block_size)
            if len(block) != self._block_size:
                raise DamagedError("ext: a directory ends early")
            yield from self._block_entries(block)

    def _block_entries(self, block: bytes) -> Iterator[tuple[DirEntry, Inode]]:
        typed = bool(self._sb.s_feature_incompat & _FILETYPE)
        offset = 0
        while offset < len(block):
            number, length, name_length, kind = struct.unpack_from("<IHBB", block, offset)
            if length in (0, 0xFFFF) and self._block_size == 65536:
                length = 65536
            name = block[offset + 8 : offset + 8 + name_length]
            if length < 8 or length % 4 or offset + length > len(block):
                raise DamagedError("ext: a directory entry of a bad length")
            offset += length
            if number == 0 or name in (b".", b".."):
                continue
            if 8 + name_length > length or number > self._sb.s_inodes_count:
                raise DamagedError("ext: a bad directory entry")
            if not typed and kind:
                raise DirectUnsupportedError("ext: long names in untyped directory entries")
            yield DirEntry(name=name, kind=_KINDS.get(kind, "u"), ino=number), self._inode(number)

    # -- attributes -------------------------------------------------------------------------------

    def _attributes(self, node: Inode) -> dict[bytes, bytes]:
        found = self._all_attributes(node)
        found.pop(b"system.data", None)
        return found

    def _all_attributes(self, node: Inode) -> dict[bytes, bytes]:
        raw = self._raw(node)
        inside = b""
        if self._sb.s_inode_size > 128:
            size = self._sb.s_inode_size
            start = self._inode_offset(node.number)
            self._stream.seek(start)
            inside = self._stream.read(size)[128 + raw.i_extra_isize :]
        block = raw.i_file_acl_lo | raw.i_file_acl_high << 32
        outside = b""
        if block:
            if block >= self._fs.block_count:
                raise DamagedError("ext: attributes beyond the end")
            self._stream.seek(block * self._block_size)
            outside = self._stream.read(self._block_size)
        return read_attributes(inside, outside)

    def _inode_offset(self, number: int) -> int:
        group, index = divmod(number - 1, self._sb.s_inodes_per_group)
        descriptor = self._fs._read_group_desc(group)  # noqa: SLF001 (dissect has no accessor)
        table = descriptor.bg_inode_table_lo | getattr(descriptor, "bg_inode_table_hi", 0) << 32
        return int(table * self._block_size + index * self._sb.s_inode_size)

    # -- space ------------------------------------------------------------------------------------

    def statvfs(self) -> StatVFS:
        """As ext4_statfs of Linux 6.1 answers (fs/ext4/super.c)."""
        with guard("ext: group descriptors"):
            return self._statvfs()

    def _statvfs(self) -> StatVFS:
        sb = self._sb
        if sb.s_feature_ro_compat & _BIGALLOC:
            raise DirectUnsupportedError("ext: bigalloc")
        free, free_inodes = self._free()
        reserved = sb.s_r_blocks_count_lo
        if sb.s_feature_incompat & _64BIT:
            reserved |= sb.s_r_blocks_count_hi << 32
        if sb.s_feature_incompat & _EXTENTS:  # only with extents: ext4_set_resv_clusters
            reserved += min(self._fs.block_count // 50, _RESERVED_MAX)
        return StatVFS(
            bsize=self._block_size,
            frsize=self._block_size,
            blocks=self._fs.block_count - self._overhead(),
            bfree=free,
            bavail=max(0, free - reserved),
            files=sb.s_inodes_count,
            ffree=free_inodes,
            favail=free_inodes,
        )

    def _free(self) -> tuple[int, int]:
        """Free blocks and inodes: the sums over the groups, which the kernel trusts."""
        count = self._fs.groups_count
        wide = self._fs._group_desc_size  # noqa: SLF001
        if count * wide > 1 << 28:
            raise DamagedError(f"ext: {count} block groups")
        self._stream.seek(self._fs.groups_offset)
        table = self._stream.read(count * wide)
        if len(table) != count * wide:
            raise DamagedError("ext: the group descriptors end early")
        blocks = inodes = 0
        for start in range(0, len(table), wide):
            low = struct.unpack_from("<HH", table, start + 12)
            high = struct.unpack_from("<HH", table, start + 44) if wide >= 64 else (0, 0)
            blocks += low[0] | high[0] << 16
            inodes += low[1] | high[1] << 16
        return blocks, inodes

    def _overhead(self) -> int:
        """Blocks of metadata: ext4_calculate_overhead (without bigalloc and meta_bg)."""
        sb = self._sb
        table_blocks = -(-sb.s_inodes_per_group * sb.s_inode_size // self._block_size)
        per_block = self._block_size // self._fs._group_desc_size  # noqa: SLF001
        descriptor_blocks = -(-self._fs.groups_count // per_block)
        overhead = sb.s_first_data_block
        for group in range(self._fs.groups_count):
            overhead += table_blocks + 2
            if self._has_super(group):
                overhead += 1 + descriptor_blocks
        if sb.s_feature_compat & _HAS_JOURNAL and sb.s_journal_inum:
            overhead += self._stat(self._inode(sb.s_journal_inum)).size // self._block_size
        return int(overhead)

    def _has_super(self, group: int) -> bool:
        if group == 0:
            return True
        if self._sb.s_feature_compat & _SPARSE_SUPER2:
            return group in list(self._sb.s_backup_bgs)
        if group == 1 or not self._sb.s_feature_ro_compat & _SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _device(block: bytes) -> int:
    """st_rdev from i_block: the old 16-bit form, else the new one (fs/ext4/inode.c)."""
    old, new = struct.unpack_from("<II", bytes(block))
    if old:
        major, minor = old >> 8 & 0xFF, old & 0xFF
    else:
        major, minor = new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00
    return os.makedev(major, minor)


def _pairs(runs: list[Run]) -> list[tuple[int | None, int]]:
    return [(run.start, run.count) for run in runs]
