"""Paths, caches and streams that all filesystems share."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from imgtools.direct.filesystems import base
from imgtools.direct.filesystems.base import Entry, Extents, Memory, NodeTree
from imgtools.errors import DamagedError, DirectUnsupportedError, GuestFileNotFoundError
from imgtools.model.files import Stat

pytestmark = pytest.mark.unit


class Tree(NodeTree[int]):
    """Directory N holds the files 0 … N - 1; counts how often directories are read."""

    def __init__(self) -> None:
        self.reads = 0
        super().__init__("a tree", 1000)

    def _node_entries(self, node: int) -> Iterator[Entry[int]]:
        self.reads += 1
        for number in range(node):
            yield b"%d" % number, "d", number

    def _node_stat(self, node: int) -> Stat:
        return Stat(ino=node, mode=stat.S_IFDIR | 0o755, nlink=1, uid=0, gid=0, size=0)


class Odd(Tree):
    def __init__(self, name: bytes) -> None:
        super().__init__()
        self._odd = name

    def _node_entries(self, node: int) -> Iterator[Entry[int]]:
        yield self._odd, "r", 1


def test_many_lookups_read_a_directory_once() -> None:
    tree = Tree()
    for number in range(1000):
        assert tree.lstat(b"/%d" % number).ino == number
    assert tree.reads == 1


def test_what_is_not_there() -> None:
    with pytest.raises(GuestFileNotFoundError):
        Tree().lstat(b"/7/7")


def test_the_cache_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_CACHED", 1500)
    tree = Tree()
    for number in range(900, 1000):
        tree.lstat(b"/%d/5" % number)
    assert tree._cached <= 1500 + 1000
    assert len(tree._directories) <= 2


def test_a_directory_of_too_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_ENTRIES", 999)
    with pytest.raises(DirectUnsupportedError):
        Tree().scandir(b"/")


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b"])
def test_impossible_names_are_damage(name: bytes) -> None:
    with pytest.raises(DamagedError):
        Odd(name).scandir(b"/")


def test_dots_are_left_out() -> None:
    assert Odd(b"..").scandir(b"/") == []


def test_extents_and_holes() -> None:
    source = Memory(bytes(range(100)))
    stream = Extents(source, 30, [(5, 5, 50), (10, 5, 20), (20, 5, 0)])
    whole = (
        bytes(5)
        + bytes(range(50, 55))
        + bytes(range(20, 25))
        + bytes(5)
        + bytes(range(5))
        + bytes(5)
    )
    assert stream.read_at(0, 30) == whole
    for start in range(30):
        for length in range(1, 31 - start):
            assert stream.read_at(start, length) == whole[start : start + length]


def test_an_extent_beyond_the_device() -> None:
    with pytest.raises(DamagedError):
        Extents(Memory(b"x" * 10), 10, [(0, 10, 5)]).read_at(0, 10)
