"""A short run of the byte-flipping job: no traceback, no hang.  ``make fuzz`` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz import run_cases

pytestmark = pytest.mark.direct

# Containers, tables, volumes, filesystems: at least one image of each parser.
CASES = {
    "qcow2-zlib": 60,
    "qcow2-chain": 30,
    "vmdk": 40,
    "vmdk-stream": 40,
    "vdi": 40,
    "vpc": 40,
    "vhdx": 40,
    "gpt": 60,
    "mbr-logical": 60,
    "luks1": 10,
    "ext2": 60,
    "ext4": 80,
    "xfs": 80,
    "btrfs": 60,
    "ntfs": 60,
    "fat12": 40,
    "fat32": 40,
    "exfat": 60,
    "squashfs": 60,
}


@pytest.mark.parametrize("name", CASES)
def test_flipped_bytes(name: str) -> None:
    failures = list(run_cases(name, CASES[name]))
    assert not failures, "\n\n".join(f"seed {f.seed}: {f.what}" for f in failures)
