"""The superblock and group descriptors of ext2, ext3 and ext4.

Source: Documentation/filesystems/ext4 of the Linux kernel; space as ext4_statfs and
ext4_calculate_overhead (fs/ext4/super.c, balloc.c) count it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError

COMPAT_JOURNAL = 0x4
INCOMPAT_FILETYPE = 0x2
INCOMPAT_RECOVER = 0x4
INCOMPAT_META_BG = 0x10
INCOMPAT_EXTENTS = 0x40
INCOMPAT_64BIT = 0x80
INCOMPAT_LARGEDIR = 0x4000
# filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir,
# inline_data, encrypt, casefold (the last two are refused per file)
INCOMPAT_KNOWN = 0x3E7D6
RO_SPARSE_SUPER = 0x1
RO_HUGE_FILE = 0x8
RO_BIGALLOC = 0x200
RO_ORPHAN_PRESENT = 0x10000
COMPAT_SPARSE_SUPER2 = 0x200
STATE_ERROR = 0x2
MAX_GROUPS = 1 << 20  # 128 TiB at 4 KiB; beyond, the descriptors alone would fill our memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What is needed of the superblock; counts in blocks or clusters as their names say."""

    inodes: int
    blocks: int
    reserved_blocks: int
    first_data_block: int
    block_size: int
    cluster_bits: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    compat: int
    incompat: int
    ro_compat: int
    state: int
    journal_inode: int
    last_orphan: int
    desc_size: int
    reserved_gdt: int
    first_meta_bg: int
    overhead_clusters: int
    backup_groups: tuple[int, int]

    @property
    def groups(self) -> int:
        """The number of block groups."""
        return -(-(self.blocks - self.first_data_block) // self.blocks_per_group)

    @property
    def descs_per_block(self) -> int:
        """Group descriptors in one block."""
        return self.block_size // self.desc_size

    def has_super(self, group: int) -> bool:
        """True if ``group`` starts with a copy of the superblock (ext4_bg_has_super)."""
        if group == 0:
            return True
        if self.compat & COMPAT_SPARSE_SUPER2:
            return group in self.backup_groups
        if group <= 1 or not self.ro_compat & RO_SPARSE_SUPER:
            return True
        return group % 2 == 1 and any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(value: int, base: int) -> bool:
    while value % base == 0:
        value //= base
    return value == 1


def read_superblock(source: BlockStream) -> Superblock:
    """Read and check the superblock; raises UncleanError when the journal needs replay."""
    raw = read_exactly(source, 1024, 1024, "the ext superblock")
    u32 = struct.unpack("<256I", raw)
    magic, state = struct.unpack_from("<HH", raw, 56)
    if magic != 0xEF53:
        raise DamagedError("no ext superblock")
    compat, incompat, ro_compat = u32[23:26]
    wide = bool(incompat & INCOMPAT_64BIT)
    inode_size = struct.unpack_from("<H", raw, 88)[0] if u32[19] else 128
    desc_size = struct.unpack_from("<H", raw, 254)[0] if wide else 32
    found = Superblock(
        inodes=u32[0],
        blocks=u32[1] | (u32[84] << 32 if wide else 0),
        reserved_blocks=u32[2] | (u32[85] << 32 if wide else 0),
        first_data_block=u32[5],
        block_size=1024 << min(u32[6], 16),
        cluster_bits=max(0, u32[7] - u32[6]) if ro_compat & RO_BIGALLOC else 0,
        blocks_per_group=u32[8],
        inodes_per_group=u32[10],
        inode_size=inode_size,
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        state=state,
        journal_inode=u32[56],
        last_orphan=u32[58],
        desc_size=desc_size,
        reserved_gdt=struct.unpack_from("<H", raw, 206)[0],
        first_meta_bg=u32[65],
        overhead_clusters=u32[146],
        backup_groups=(u32[147], u32[148]),
    )
    _check(found, source.size, external_journal=bool(u32[57]))
    return found


def _check(found: Superblock, size: int, *, external_journal: bool) -> None:
    if found.incompat & ~INCOMPAT_KNOWN:
        raise DirectUnsupportedError(f"ext4 with features {found.incompat & ~INCOMPAT_KNOWN:#x}")
    if found.compat & COMPAT_JOURNAL and (external_journal or not found.journal_inode):
        raise DirectUnsupportedError("ext4 with an external journal")
    if found.incompat & INCOMPAT_RECOVER:
        raise UncleanError("the ext journal needs replay")
    if found.state & STATE_ERROR:
        raise UncleanError("the ext filesystem is marked as having errors")
    block = found.block_size
    sane = (
        1024 <= block <= 65536
        and found.cluster_bits <= 16
        and 128 <= found.inode_size <= block
        and found.inode_size & (found.inode_size - 1) == 0
        and 32 <= found.desc_size <= block
        and found.desc_size & (found.desc_size - 1) == 0
        and found.first_data_block == (1 if block == 1024 and not found.cluster_bits else 0)
        and 0 < found.blocks_per_group <= block * 8 << found.cluster_bits
        and 0 < found.inodes_per_group <= block * 8
        and found.first_data_block < found.blocks <= size // block
    )
    if not sane:
        raise DamagedError("the ext superblock is inconsistent")
    if found.groups > MAX_GROUPS or found.groups * found.inodes_per_group < found.inodes:
        raise DamagedError("the ext superblock has a wrong number of groups")


@dataclass(frozen=True, slots=True)
class Group:
    """A group descriptor: where the inode table is, and what is free."""

    inode_table: int
    free_clusters: int
    free_inodes: int


class Groups:
    """The group descriptors, read as they are needed."""

    def __init__(self, source: BlockStream, superblock: Superblock) -> None:
        self._source = source
        self._super = superblock
        self._cache: dict[int, bytes] = {}  # descriptor blocks; bounded by MAX_GROUPS

    def _place(self, index: int) -> int:
        """The block that holds the ``index``-th block of descriptors (descriptor_loc)."""
        sb = self._super
        if not sb.incompat & INCOMPAT_META_BG or index < sb.first_meta_bg:
            # The descriptors stand in the block after the superblock's.
            return 1024 // sb.block_size + index + 1
        group = sb.descs_per_block * index
        start = sb.first_data_block + group * sb.blocks_per_group
        if sb.block_size == 1024 and sb.first_data_block == 0:
            start += 1
        return start + sb.has_super(group)

    def __getitem__(self, group: int) -> Group:
        sb = self._super
        index, inner = divmod(group, sb.descs_per_block)
        block = self._cache.get(index)
        if block is None:
            at = self._place(index) * sb.block_size
            block = read_exactly(self._source, at, sb.block_size, "an ext group descriptor")
            self._cache[index] = block
        at = inner * sb.desc_size
        table, free, inodes = struct.unpack_from("<IHH", block, at + 8)
        if sb.desc_size >= 64:
            high = struct.unpack_from("<IHH", block, at + 40)
            table, free, inodes = (
                table | high[0] << 32,
                free | high[1] << 16,
                inodes | high[2] << 16,
            )
        if not 0 < table < sb.blocks:
            raise DamagedError("an ext inode table lies outside the filesystem")
        return Group(table, free, inodes)


def overhead(sb: Superblock) -> int:
    """Clusters that hold structures, without the journal (ext4_calculate_overhead)."""
    if sb.cluster_bits or sb.ro_compat & RO_BIGALLOC:
        if not 0 < sb.overhead_clusters <= sb.blocks:
            raise DirectUnsupportedError("ext4 with bigalloc and no overhead stored")
        return sb.overhead_clusters
    tables = sb.inodes_per_group * sb.inode_size // sb.block_size + 2
    total = sb.first_data_block
    for group in range(sb.groups):
        has_super = sb.has_super(group)
        total += has_super + _descriptor_blocks(sb, group, has_super=has_super) + tables
        total += sb.reserved_gdt if has_super else 0
    return total


def _descriptor_blocks(sb: Superblock, group: int, *, has_super: bool) -> int:
    """Descriptor blocks in a group (ext4_bg_num_gdb)."""
    per_block = sb.descs_per_block
    meta = bool(sb.incompat & INCOMPAT_META_BG)
    if not meta or group // per_block < sb.first_meta_bg:
        whole = sb.first_meta_bg if meta else -(-sb.groups // per_block)
        return whole if has_super else 0
    return int(group % per_block in (0, 1, per_block - 1))
