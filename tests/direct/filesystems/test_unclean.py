"""A journal that needs replay is refused; what mounting does not change is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.direct.filesystems import open_filesystem
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError
from tests.direct.filesystems.flipping import Flipped, open_stream

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]
VOLUME_INFORMATION = bytes.fromhex("7000000028000000")


@pytest.mark.parametrize(
    ("name", "kind"), [("ext4-unclean", "ext4"), ("xfs-unclean", "xfs"), ("btrfs-unclean", "btrfs")]
)
def test_dirty_journals(name: str, kind: str, image: Image) -> None:
    with pytest.raises(UncleanError):
        open_filesystem(kind, [open_stream(image(name))])


def test_ext_error_state(image: Image) -> None:
    stream = open_stream(image("ext4"))
    state = stream.read_at(1024 + 58, 1)[0]
    with pytest.raises(UncleanError):
        open_filesystem("ext4", [Flipped(stream, {1024 + 58: state | 2})])


def test_ext_orphans_hide_the_space_only(image: Image) -> None:
    tree = open_filesystem("ext4", [Flipped(open_stream(image("ext4")), {1024 + 232: 13})])
    assert tree.lstat(b"/data").kind == "d"
    with pytest.raises(DirectUnsupportedError):
        tree.statvfs()


def test_ext_unknown_feature(image: Image) -> None:
    with pytest.raises(DirectUnsupportedError):
        open_filesystem("ext4", [Flipped(open_stream(image("ext4")), {1024 + 99: 0x80})])


def test_ext_larger_than_its_device(image: Image) -> None:
    with pytest.raises(DamagedError):
        open_filesystem("ext4", [Flipped(open_stream(image("ext4")), {1024 + 7: 0x7F})])


def test_ntfs_dirty_flag(image: Image) -> None:
    stream = open_stream(image("ntfs"))
    sector = int.from_bytes(stream.read_at(11, 2), "little")
    cluster = sector * stream.read_at(13, 1)[0]
    volume = int.from_bytes(stream.read_at(48, 8), "little") * cluster + 3 * 1024
    attribute = stream.read_at(volume, 1024).index(VOLUME_INFORMATION)
    value = attribute + stream.read_at(volume + attribute + 20, 1)[0]
    assert open_filesystem("ntfs", [stream]).lstat(b"/data").kind == "d"
    with pytest.raises(UncleanError):
        open_filesystem("ntfs", [Flipped(stream, {volume + value + 10: 1})])


def test_fat_dirty_bit_changes_nothing(image: Image) -> None:
    stream = open_stream(image("fat32"))
    dirty = open_filesystem("vfat", [Flipped(stream, {65: 1})])
    clean = open_filesystem("vfat", [stream])
    assert dirty.scandir(b"/data") == clean.scandir(b"/data")
    assert dirty.statvfs() == clean.statvfs()
