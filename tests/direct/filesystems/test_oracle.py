"""Every filesystem fixture, whole, against the libguestfs appliance: one launch for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fixtures
from imgtools.appliance.engine import ApplianceEngine
from imgtools.direct.filesystems import open_filesystem
from imgtools.image.chain import resolve_disk
from imgtools.model.disks import Disk, DiskRequest
from tests.direct.filesystems.agreement import differences
from tests.direct.filesystems.flipping import open_stream

pytestmark = pytest.mark.appliance

# The type by libblkid's name.
FILESYSTEMS = {
    "ext2": "ext2",
    "ext3": "ext3",
    "ext4": "ext4",
    "ext4-1k": "ext4",
    "ext4-bigalloc": "ext4",
    "ext4-inline": "ext4",
    "ext4-old": "ext4",
    "ext4-quota": "ext4",
    "ext4-meta-bg": "ext4",
    "ext4-sparse-super2": "ext4",
    "ext4-ea-inode": "ext4",
    "xfs": "xfs",
    "xfs-v4": "xfs",
    "xfs-1k": "xfs",
    "xfs-new": "xfs",
    "btrfs": "btrfs",
    "btrfs-flat": "btrfs",
    "btrfs-compressed": "btrfs",
    "btrfs-raid1": "btrfs",
    "squashfs": "squashfs",
    "squashfs-xz": "squashfs",
    "squashfs-zstd": "squashfs",
    "squashfs-lz4": "squashfs",
    "ntfs": "ntfs",
    "fat12": "vfat",
    "fat16": "vfat",
    "fat32": "vfat",
    "exfat": "exfat",
}


def _disk(path: object) -> Disk:
    return resolve_disk(DiskRequest(path=path), untrusted=False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def appliance() -> Iterator[tuple[ApplianceEngine, dict[str, str]]]:
    """The appliance with all disks, and the device name of each fixture's first one."""
    disks: list[Disk] = []
    devices: dict[str, str] = {}
    for name in FILESYSTEMS:
        devices[name] = _device(len(disks))
        disks += [_disk(path) for path in fixtures.disks(name)]
    engine = ApplianceEngine(disks)
    yield engine, devices
    engine.close()


def _device(index: int) -> str:
    letter = chr(ord("a") + index % 26)
    return f"/dev/sd{letter}" if index < 26 else f"/dev/sd{chr(ord('a') + index // 26 - 1)}{letter}"


def test_every_filesystem_fixture_is_compared() -> None:
    others = {"swap", "f2fs", "iso9660", "udf", "ufs1", "ufs2"}
    assert set(fixtures.tagged("filesystem", "whole-disk")) - others <= set(FILESYSTEMS)


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_direct_shows_what_the_appliance_shows(
    name: str, appliance: tuple[ApplianceEngine, dict[str, str]]
) -> None:
    engine, devices = appliance
    streams = [open_stream(path) for path in fixtures.disks(name)]
    ours = open_filesystem(FILESYSTEMS[name], list(streams))
    theirs = engine.mount(devices[name])
    # FAT has no inode numbers: the kernel counts them up as it meets files.
    skip = frozenset({"ino"}) if FILESYSTEMS[name] in ("vfat", "exfat") else frozenset()
    assert not differences(ours, theirs, skip)
