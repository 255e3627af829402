"""Every difference is found, in the order of a walk; what a kernel has not touched is not read."""

from __future__ import annotations

import dataclasses
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.compare import Change, compare_trees
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model.files import Stat
from tests.unit.memory_tree import MemoryTree

pytestmark = pytest.mark.unit

OLD_TIME = 1_500_000_000 * 10**9 + 1


class StatTree(MemoryTree):
    """A tree whose metadata are given by path, and which remembers what was opened."""

    def __init__(self, root: dict[bytes, object], **stats: dict[str, Any]) -> None:
        super().__init__(root)
        self.stats = {path.encode(): changes for path, changes in stats.items()}
        self.xattrs: dict[bytes, dict[bytes, bytes]] = {}
        self.read: list[bytes] = []

    def lstat(self, path: bytes) -> Stat:
        found = super().lstat(path)
        number = sum(path)  # the same in two trees, as it is in an image and its overlay
        found = dataclasses.replace(found, ino=number, mtime_ns=OLD_TIME, ctime_ns=OLD_TIME)
        return dataclasses.replace(found, **self.stats.get(path.rpartition(b"/")[2], {}))

    def open(self, path: bytes) -> BinaryIO:
        self.read.append(path)
        return super().open(path)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        return self.xattrs.get(path, {})


def guest(tree: MemoryTree, kind: str = "ext4") -> GuestTree:
    return GuestTree([Mount(b"/", "/dev/sda1", tree, kind)])


def changes(old: MemoryTree, new: MemoryTree, **options: Any) -> list[tuple[bytes, str, str]]:
    found = compare_trees(guest(old), guest(new), **options)
    return [(one.path, one.kind, " ".join(one.differences)) for one in found]


def test_added_removed_and_changed_in_the_order_of_a_walk() -> None:
    old = StatTree({b"a": {b"x": b"1", b"z": b"3"}, b"a-b": b"same", b"gone": {b"deep": b""}})
    new = StatTree({b"a": {b"x": b"2", b"y": {b"new": "target"}}, b"a-b": b"same", b"b": b"long"})
    assert changes(old, new) == [
        (b"/a/x", "modified", "content"),
        (b"/a/y", "added", ""),
        (b"/a/y/new", "added", ""),
        (b"/a/z", "removed", ""),
        (b"/b", "added", ""),
        (b"/gone", "removed", ""),
        (b"/gone/deep", "removed", ""),
    ]


def test_the_two_sides_of_a_change_are_its_stats() -> None:
    old, new = StatTree({b"f": b"1", b"r": b""}), StatTree({b"f": b"12", b"s": b""})
    modified, removed, added = compare_trees(guest(old), guest(new))
    assert modified.before is not None
    assert modified.after is not None
    assert (modified.before.size, modified.after.size) == (1, 2)
    assert (removed.after, added.before) == (None, None)


@pytest.mark.parametrize(
    ("content", "before", "after", "words"),
    [
        (b"file", {"mode": 0o100644}, {"mode": 0o100600}, "mode"),
        (b"file", {"uid": 0}, {"uid": 1}, "owner"),
        (b"file", {"gid": 0}, {"gid": 1}, "owner"),
        (b"file", {"nlink": 1}, {"nlink": 2}, "links"),
        (b"file", {"mtime_ns": 1}, {"mtime_ns": 2}, ""),
        (b"file", {"atime_ns": 1, "ctime_ns": 1}, {"atime_ns": 2, "ctime_ns": 2}, ""),
        (b"file", {"size": 3}, {"size": 4}, "content size"),
        (None, {"mode": 0o020644, "rdev": 1}, {"mode": 0o020644, "rdev": 2}, "device"),
        (None, {"mode": 0o020644}, {"mode": 0o060644}, "type"),
        ({}, {"nlink": 2, "size": 1}, {"nlink": 3, "size": 2}, ""),
        ({}, {"mode": 0o040755}, {"mode": 0o041777}, "mode"),
    ],
)
def test_metadata(
    content: object, before: dict[str, int], after: dict[str, int], words: str
) -> None:
    old, new = StatTree({b"x": content}, x=before), StatTree({b"x": content}, x=after)
    found = changes(old, new)
    assert found == ([(b"/x", "modified", words)] if words else [])


def test_times_count_on_request_and_only_those_of_files() -> None:
    stats = {"f": {"mtime_ns": 5}, "d": {"mtime_ns": 5}}
    old, new = StatTree({b"f": b"", b"d": {}}), StatTree({b"f": b"", b"d": {}}, **stats)
    assert changes(old, new) == []
    assert changes(old, new, times=True) == [(b"/f", "modified", "times")]


def test_link_targets_xattrs_and_the_root_itself() -> None:
    old = StatTree({b"link": "a", b"f": b""})
    new = StatTree({b"link": "b", b"f": b""})
    old.xattrs[b"/f"] = {b"security.selinux": b"one"}
    new.xattrs[b"/f"] = {b"security.selinux": b"two"}
    new.stats[b""] = {"uid": 7}
    assert changes(old, new) == [
        (b"/", "modified", "owner"),
        (b"/f", "modified", "xattrs"),
        (b"/link", "modified", "target"),
    ]
    assert (b"/f", "modified", "xattrs") not in changes(old, new, xattrs=False)


def test_a_folder_that_becomes_a_file() -> None:
    old, new = StatTree({b"x": {b"in": b""}}), StatTree({b"x": b""})
    assert changes(old, new) == [(b"/x", "modified", "type"), (b"/x/in", "removed", "")]


def test_without_content_a_file_of_one_size_is_equal() -> None:
    old, new = StatTree({b"f": b"1"}), StatTree({b"f": b"2"})
    assert changes(old, new, content=False) == []
    assert changes(old, new) == [(b"/f", "modified", "content")]
    assert old.read == new.read == [b"/f"]


def test_files_that_keep_inode_and_ctime_are_not_read() -> None:
    old, new = StatTree({b"f": b"1", b"g": b"1"}), StatTree({b"f": b"1", b"g": b"2"})
    new.stats[b"g"] = {"ctime_ns": OLD_TIME + 1}
    assert changes(old, new, same_filesystem=True) == [(b"/g", "modified", "content")]
    assert old.read == new.read == [b"/g"]


@pytest.mark.parametrize(
    ("old_type", "new_type", "stats"),
    [
        ("vfat", "vfat", {}),  # no ctime of its own
        ("", "", {}),  # who knows
        ("ext4", "xfs", {}),  # made anew
        ("ext4", "ext4", {"ino": 1}),
        ("ext4", "ext4", {"mtime_ns": 1}),
        ("ext4", "ext4", {"blocks": 8}),
    ],
)
def test_what_could_be_another_file_is_read(
    old_type: str, new_type: str, stats: dict[str, int]
) -> None:
    old, new = StatTree({b"f": b"1"}), StatTree({b"f": b"2"}, f=stats)
    found = list(compare_trees(guest(old, old_type), guest(new, new_type), same_filesystem=True))
    assert [one.differences for one in found] == [("content",)]


def test_a_ctime_in_whole_seconds_proves_nothing() -> None:
    stats = {"f": {"ctime_ns": 1_500_000_000 * 10**9}}
    old, new = StatTree({b"f": b"1"}, **stats), StatTree({b"f": b"2"}, **stats)
    assert changes(old, new, same_filesystem=True) == [(b"/f", "modified", "content")]


def test_folders_and_last_accesses_count_on_request() -> None:
    stats = {"f": {"atime_ns": 5}, "d": {"mtime_ns": 5, "nlink": 9, "atime_ns": 5}}
    old, new = StatTree({b"f": b"", b"d": {}}), StatTree({b"f": b"", b"d": {}}, **stats)
    assert changes(old, new, atime=True) == [(b"/f", "modified", "times")]
    assert changes(old, new, dir_times=True) == [(b"/d", "modified", "times")]
    assert changes(old, new, dir_links=True) == [(b"/d", "modified", "links")]


names = st.sampled_from([b"a", b"a-", b"a.b", b"b", b"\xff", b"n\nl"])
trees = st.recursive(
    st.dictionaries(names, st.sampled_from([b"", b"1", b"2", "to", None]), max_size=4),
    lambda inner: st.dictionaries(names, inner | st.sampled_from([b"1", "to"]), max_size=4),
    max_leaves=12,
)


def flat(tree: Any, path: bytes = b"") -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for name, node in tree.items():
        found[path + b"/" + name] = "folder" if isinstance(node, dict) else (type(node), node)
        if isinstance(node, dict):
            found |= flat(node, path + b"/" + name)
    return found


@given(trees, trees)
def test_every_difference_and_no_other(one: Any, other: Any) -> None:
    before, after = flat(one), flat(other)
    found = list(compare_trees(guest(StatTree(one)), guest(StatTree(other))))
    expected = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert {change.path for change in found} == expected
    paths = [change.path for change in found]
    assert paths == sorted(paths, key=lambda path: path.split(b"/"))
    kinds = {change.path: change.kind for change in found}
    assert {p for p, kind in kinds.items() if kind == "added"} == after.keys() - before.keys()
    assert {p for p, kind in kinds.items() if kind == "removed"} == before.keys() - after.keys()


def test_a_change_can_be_put_away() -> None:
    change = Change(path=b"/x", kind="added")
    assert dataclasses.replace(change, kind="removed") != change
