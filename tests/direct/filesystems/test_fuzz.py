"""Flipped bytes in what the parsers read: nothing but our errors comes out, and nothing hangs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.direct.filesystems.flipping import Flipped, flips, open_stream, read_all, touched

pytestmark = [pytest.mark.direct, pytest.mark.timeout(120)]

CASES = {
    "ext2": ("ext2", 40),
    "ext4": ("ext4", 40),
    "ext4-inline": ("ext4", 30),
    "xfs": ("xfs", 40),
    "xfs-v4": ("xfs", 20),
    "btrfs-flat": ("btrfs", 30),
    "btrfs-compressed": ("btrfs", 20),
    "ntfs": ("ntfs", 40),
    "fat12": ("vfat", 40),
    "fat32": ("vfat", 30),
    "exfat": ("exfat", 40),
    "squashfs": ("squashfs", 40),
    "squashfs-zstd": ("squashfs", 20),
}


@pytest.mark.parametrize("name", CASES)
def test_flipped_bytes_end_in_our_errors(name: str, image: Callable[[str], Path]) -> None:
    kind, cases = CASES[name]
    stream = open_stream(image(name))
    pieces = touched(kind, stream)
    for seed in range(cases):
        read_all(kind, Flipped(stream, flips(stream, pieces, random.Random(f"{name}-{seed}"))))
