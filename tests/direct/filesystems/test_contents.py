"""The files that every fixture holds come out byte for byte."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.contents import MANY, plain_files
from imgtools.direct.filesystems import open_filesystem
from imgtools.errors import (
    DirectUnsupportedError,
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
)
from imgtools.model.files import FileTree
from tests.direct.filesystems.flipping import open_stream

pytestmark = pytest.mark.direct

FIXTURES = {
    "ext2": "ext2",
    "ext3": "ext3",
    "ext4": "ext4",
    "ext4-bigalloc": "ext4",
    "ext4-inline": "ext4",
    "ext4-old": "ext4",
    "xfs": "xfs",
    "xfs-1k": "xfs",
    "btrfs-flat": "btrfs",
    "squashfs": "squashfs",
    "squashfs-xz": "squashfs",
    "ntfs": "ntfs",
    "fat12": "vfat",
    "fat16": "vfat",
    "fat32": "vfat",
    "exfat": "exfat",
}


@pytest.fixture(params=FIXTURES)
def tree(request: pytest.FixtureRequest, image: Callable[[str], Path]) -> FileTree:
    return open_filesystem(FIXTURES[request.param], [open_stream(image(request.param))])


def test_every_file_has_its_bytes(tree: FileTree) -> None:
    for entry in plain_files():
        if entry.kind != tarfile.REGTYPE:
            continue
        path = b"/" + entry.path
        with tree.open(path) as stream:
            assert stream.read() == entry.data, path
        assert tree.lstat(path).size == len(entry.data), path


def test_reads_from_anywhere(tree: FileTree) -> None:
    data = next(entry.data for entry in plain_files() if entry.path == b"data/big.bin")
    with tree.open(b"/data/big.bin") as stream:
        for offset in (len(data) - 3, 4095, 65537, 1_000_001, 0):
            stream.seek(offset)
            assert stream.read(70_000) == data[offset : offset + 70_000]
        stream.seek(len(data) + 10)
        assert stream.read(1) == b""


def test_large_directories_are_whole(tree: FileTree) -> None:
    names = [entry.name for entry in tree.scandir(b"/data/many")]
    assert sorted(names) == [b"entry-%04d" % number for number in range(MANY)]
    stats = tree.lstat_many(b"/data/many", [*names[:50], b"missing"])
    assert [found is not None for found in stats] == [True] * 50 + [False]


def test_missing_and_misused_paths(tree: FileTree) -> None:
    with pytest.raises(GuestFileNotFoundError):
        tree.lstat(b"/data/missing")
    with pytest.raises(GuestFileNotFoundError):
        tree.lstat(b"/missing/deeper")
    with pytest.raises(GuestNotADirectoryError):
        tree.lstat(b"/data/hello.txt/deeper")
    with pytest.raises(GuestNotADirectoryError):
        tree.scandir(b"/data/hello.txt")
    with pytest.raises(GuestIsADirectoryError):
        tree.open(b"/data")


@pytest.mark.parametrize("name", sorted(FIXTURES.keys() - {"btrfs-flat"}))
def test_space_adds_up(name: str, image: Callable[[str], Path]) -> None:
    found = open_filesystem(FIXTURES[name], [open_stream(image(name))]).statvfs()
    assert 0 <= found.bavail <= found.bfree <= found.blocks
    assert 0 <= found.ffree <= found.files


def test_space_of_btrfs_is_left_to_the_kernel(image: Callable[[str], Path]) -> None:
    tree = open_filesystem("btrfs", [open_stream(image("btrfs-flat"))])
    with pytest.raises(DirectUnsupportedError):
        tree.statvfs()
