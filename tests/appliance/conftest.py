"""Disks of their own for the tests that change one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import sysprep
from fixtures.tree import make_tar
from tests.appliance.scratch import change, copy_of, overlay_of


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


@pytest.fixture(scope="session")
def planted(image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay of a real Debian with traces for sysprep; not to be changed."""
    place = tmp_path_factory.mktemp("planted")
    make_tar(place / "traces.tar", sysprep.entries("debian"))
    disk = overlay_of(image("debian-plain"), place / "disk.qcow2")
    change("tar-in", "-a", disk, place / "traces.tar", "/")
    return disk
