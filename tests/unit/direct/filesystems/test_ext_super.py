"""Where ext keeps copies of its superblock, and what it counts as overhead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imgtools.direct.filesystems.ext_super import (
    COMPAT_SPARSE_SUPER2,
    INCOMPAT_META_BG,
    RO_BIGALLOC,
    RO_SPARSE_SUPER,
    Superblock,
    overhead,
)
from imgtools.errors import DirectUnsupportedError

pytestmark = pytest.mark.unit

SUPER = Superblock(
    inodes=65536,
    blocks=1 << 20,
    reserved_blocks=0,
    first_data_block=0,
    block_size=4096,
    cluster_bits=0,
    blocks_per_group=32768,
    inodes_per_group=2048,
    inode_size=256,
    compat=0,
    incompat=0,
    ro_compat=RO_SPARSE_SUPER,
    state=1,
    journal_inode=8,
    last_orphan=0,
    desc_size=64,
    reserved_gdt=10,
    first_meta_bg=0,
    overhead_clusters=0,
    backup_groups=(1, 31),
)


def copies(sb: Superblock) -> list[int]:
    return [group for group in range(sb.groups) if sb.has_super(group)]


def test_sparse_copies() -> None:
    assert copies(SUPER) == [0, 1, 3, 5, 7, 9, 25, 27]


def test_copies_everywhere_without_sparse_super() -> None:
    assert len(copies(replace(SUPER, ro_compat=0))) == SUPER.groups == 32


def test_two_copies_with_sparse_super2() -> None:
    assert copies(replace(SUPER, compat=COMPAT_SPARSE_SUPER2)) == [0, 1, 31]


def test_overhead() -> None:
    # 32 groups: 128 blocks of inode table and two bitmaps each; eight of them hold a superblock,
    # one block of descriptors and ten reserved for more.
    assert overhead(SUPER) == 32 * (128 + 2) + 8 * (1 + 1 + 10)


def test_overhead_with_meta_groups() -> None:
    # One meta group: its first, second and last (63, not there) group hold descriptors.
    meta = replace(SUPER, incompat=INCOMPAT_META_BG, reserved_gdt=0)
    assert overhead(meta) == 32 * (128 + 2) + 8 + 2


def test_bigalloc_believes_what_is_stored() -> None:
    big = replace(SUPER, ro_compat=RO_BIGALLOC, cluster_bits=4)
    assert overhead(replace(big, overhead_clusters=77)) == 77
    with pytest.raises(DirectUnsupportedError):
        overhead(big)
