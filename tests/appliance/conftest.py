"""Disks of their own for the tests that change one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import copy_of, overlay_of


@pytest.fixture
def disk(image: Callable[[str], Path], tmp_path: Path) -> Path:
    """A raw disk with an MBR and one ext4."""
    (tmp_path / "disks").mkdir()
    return copy_of(image("changing"), tmp_path / "disks/disk.img")


@pytest.fixture
def debian(image: Callable[[str], Path], tmp_path: Path) -> Path:
    """An overlay of a real Debian: ext4 root and XFS home on LVM, ext4 boot, FAT ESP."""
    (tmp_path / "disks").mkdir()
    return overlay_of(image("debian-lvm"), tmp_path / "disks/disk.qcow2")
