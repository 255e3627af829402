"""The superblock of XFS: geometry and what it says about the filesystem's state.

Source: "XFS Algorithms & Data Structures", chapter Superblocks; Linux fs/xfs/libxfs/xfs_format.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imgtools.direct.filesystems.base import read_exactly
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

MAGIC = b"XFSB"
MAX_GROUPS = 100_000
VERSION_DIRV2 = 0x2000
VERSION_CASELESS = 0x4000
VERSION_MOREBITS = 0x8000
VERSION_SHARED = 0x0200
FEATURES2_LAZY = 0x02
FEATURES2_FTYPE = 0x200
RO_COMPAT_KNOWN = 0x0F  # finobt, rmapbt, reflink, inobtcount
RO_COMPAT_RMAP = 0x02
RO_COMPAT_RESERVING = 0x07  # finobt, rmapbt, reflink
INCOMPAT_FTYPE = 0x01
INCOMPAT_META_UUID = 0x04
INCOMPAT_NEEDSREPAIR = 0x10
# ftype, sparse inodes, meta uuid, bigtime, needsrepair, nrext64, exchange range (log items only)
INCOMPAT_KNOWN = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class Super:
    """What the superblock says; sizes in bytes unless they count ``blocks``."""

    block_size: int
    blocks: int
    uuid: bytes
    meta_uuid: bytes
    log_start: int
    log_blocks: int
    root: int
    ag_blocks: int
    ag_count: int
    version: int
    inode_size: int
    inodes_per_block_log: int
    ag_blocks_log: int
    inode_percent: int
    inodes: int
    free_inodes: int
    free_blocks: int
    directory_block: int
    ftype: bool
    has_rmap: bool
    reserves: bool
    sector: int

    def block_address(self, block: int, count: int = 1) -> int:
        """The byte address of ``count`` blocks from number ``block`` on, all in one AG."""
        group, inner = block >> self.ag_blocks_log, block & (1 << self.ag_blocks_log) - 1
        first = group * self.ag_blocks + inner
        if group >= self.ag_count or inner + count > self.ag_blocks or first + count > self.blocks:
            raise DamagedError(f"XFS block {block} does not exist")
        return first * self.block_size

    def inode_address(self, number: int) -> int:
        """The byte address of an inode."""
        block = number >> self.inodes_per_block_log
        index = number & (1 << self.inodes_per_block_log) - 1
        return self.block_address(block) + index * self.inode_size


def read_superblock(source: BlockStream) -> Super:
    """Read and check the primary superblock.

    Raises DirectUnsupportedError for features that are not read here, DamagedError.
    """
    raw = read_exactly(source, 0, 512, "the XFS superblock")
    if raw[:4] != MAGIC:
        raise DamagedError("no XFS superblock")
    version = struct.unpack_from(">H", raw, 100)[0]
    features2 = struct.unpack_from(">I", raw, 200)[0] if version & VERSION_MOREBITS else 0
    _, ro_compat, incompat = struct.unpack_from(">III", raw, 208)
    number = version & 0xF
    if number != 5:
        ro_compat = incompat = 0
    _check_features(raw, version, ro_compat, incompat)
    block_size, blocks = struct.unpack_from(">IQ", raw, 4)
    ag_blocks, ag_count, _, log_blocks, _, _, inode_size = struct.unpack_from(">IIIIHHH", raw, 84)
    own_uuid = number == 5 and bool(incompat & INCOMPAT_META_UUID)
    found = Super(
        block_size=block_size,
        blocks=blocks,
        uuid=raw[32:48],
        meta_uuid=raw[248:264] if own_uuid else raw[32:48],
        log_start=struct.unpack_from(">Q", raw, 48)[0],
        log_blocks=log_blocks,
        root=struct.unpack_from(">Q", raw, 56)[0],
        ag_blocks=ag_blocks,
        ag_count=ag_count,
        version=number,
        inode_size=inode_size,
        inodes_per_block_log=raw[123],
        ag_blocks_log=raw[124],
        inode_percent=raw[127],
        inodes=struct.unpack_from(">Q", raw, 128)[0],
        free_inodes=struct.unpack_from(">Q", raw, 136)[0],
        free_blocks=struct.unpack_from(">Q", raw, 144)[0],
        directory_block=block_size << min(raw[192], 16),
        ftype=bool(incompat & INCOMPAT_FTYPE if number == 5 else features2 & FEATURES2_FTYPE),
        has_rmap=bool(ro_compat & RO_COMPAT_RMAP),
        reserves=bool(ro_compat & RO_COMPAT_RESERVING),
        sector=struct.unpack_from(">H", raw, 102)[0],
    )
    _check_geometry(raw, found, source.size)
    return found


def _check_features(raw: bytes, version: int, ro_compat: int, incompat: int) -> None:
    if version & 0xF not in (4, 5) or not version & VERSION_DIRV2:
        raise DirectUnsupportedError(f"XFS of version {version & 0xF} or with old directories")
    if version & (VERSION_CASELESS | VERSION_SHARED):
        raise DirectUnsupportedError("XFS with names regardless of case, or shared")
    if ro_compat & ~RO_COMPAT_KNOWN or incompat & ~INCOMPAT_KNOWN:
        raise DirectUnsupportedError(f"XFS with features {ro_compat:#x}, {incompat:#x}")
    if incompat & INCOMPAT_NEEDSREPAIR:
        raise DamagedError("this XFS is marked as in need of xfs_repair")
    if struct.unpack_from(">Q", raw, 16)[0]:
        raise DirectUnsupportedError("XFS with a realtime device")
    if raw[126]:
        raise DamagedError("this XFS was not made completely")


def _check_geometry(raw: bytes, found: Super, size: int) -> None:
    right = (
        512 <= found.block_size <= 65536
        and found.block_size == 1 << raw[120]
        and 256 <= found.inode_size <= 2048
        and found.inode_size == 1 << raw[122]
        and found.block_size == found.inode_size << found.inodes_per_block_log
        and found.directory_block <= 65536
        and 512 <= found.sector <= 32768
        and found.ag_blocks_log <= 31
        and 0 < found.ag_blocks <= 1 << found.ag_blocks_log
        and found.ag_blocks > 1 << found.ag_blocks_log >> 1
        and found.ag_count > 0
        and (found.ag_count - 1) * found.ag_blocks < found.blocks
        and found.blocks <= found.ag_count * found.ag_blocks
    )
    if not right:
        raise DamagedError("the XFS superblock contradicts itself")
    if found.blocks * found.block_size > size:
        raise DamagedError("this XFS is larger than its device")


def free_space_tree_blocks(source: BlockStream, sb: Super) -> int:
    """Blocks below the roots of the trees of free space, which the superblock counts as free.

    The sum of all allocation groups, as mounting leaves it in m_allocbt_blks: without a feature
    that reserves blocks it does not look at the groups, and the sum stays 0.
    """
    if not sb.reserves:
        return 0
    if sb.ag_count > MAX_GROUPS:
        raise DirectUnsupportedError(f"XFS of {sb.ag_count} allocation groups")
    total = 0
    for group in range(sb.ag_count):
        at = group * sb.ag_blocks * sb.block_size + sb.sector
        raw = read_exactly(source, at, 512, "an XFS allocation group")
        if raw[:4] != b"XAGF" or struct.unpack_from(">I", raw, 8)[0] != group:
            raise DamagedError(f"XFS allocation group {group} has no header")
        blocks, reverse = struct.unpack_from(">I", raw, 60)[0], struct.unpack_from(">I", raw, 80)[0]
        total += max(0, blocks - (reverse - 1 if sb.has_rmap else 0))
    return total
