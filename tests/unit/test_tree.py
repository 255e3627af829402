"""Links resolve inside the guest, whatever they say; mounts cover what is below them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestFileTooLargeError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
    GuestSymlinkLoopError,
)
from imgtools.guest.tree import MAX_DEPTH, GuestTree, Mount
from tests.unit.memory_tree import MemoryTree

pytestmark = pytest.mark.unit

ROOT: dict[bytes, object] = {
    b"etc": {
        b"passwd": b"guest's own",
        b"absolute": "/etc/passwd",
        b"relative": "passwd",
        b"climber": "../../../../../../etc/passwd",
        b"dangling": "/nowhere/at/all",
        b"loop-a": "loop-b",
        b"loop-b": "loop-a",
        b"self": "self",
        b"through-boot": "/boot/kernel",
    },
    b"boot": {b"hidden": b"covered by the mount"},
    b"link-to-etc": "etc",
    b"fifo": None,
    b"odd\n\xff": {b"x": b"1"},
}
BOOT: dict[bytes, object] = {b"kernel": b"vmlinuz", b"up": "../etc/passwd"}


@pytest.fixture
def guest() -> GuestTree:
    return GuestTree(
        [
            Mount(b"/boot", "/dev/sda1", MemoryTree(BOOT)),
            Mount(b"/", "/dev/sda2", MemoryTree(ROOT)),
        ]
    )


@pytest.mark.parametrize(
    "path",
    [
        b"/etc/passwd",
        b"/etc/absolute",
        b"/etc/relative",
        b"/etc/climber",
        b"/link-to-etc/passwd",
        b"//etc/./../etc//passwd",
        b"/../../etc/passwd",
        b"/boot/up",
    ],
)
def test_every_way_leads_to_the_guests_own_file(guest: GuestTree, path: bytes) -> None:
    assert guest.resolve(path) == b"/etc/passwd"
    assert guest.read(path, limit=100) == b"guest's own"


def test_mounts_cover_and_links_cross_them(guest: GuestTree) -> None:
    assert guest.listdir(b"/boot") == [b"kernel", b"up"]
    assert guest.resolve(b"/etc/through-boot") == b"/boot/kernel"
    assert guest.device_of(b"/etc/through-boot") == "/dev/sda1"
    assert not guest.exists(b"/boot/hidden")


@pytest.mark.parametrize("name", [b"/etc/loop-a", b"/etc/self", b"/etc/self/x"])
def test_loops_end(guest: GuestTree, name: bytes) -> None:
    with pytest.raises(GuestSymlinkLoopError):
        guest.stat(name)
    assert not guest.exists(name)


def test_lstat_and_readlink_do_not_follow_the_last(guest: GuestTree) -> None:
    assert guest.lstat(b"/etc/self").kind == "l"
    assert guest.readlink(b"/link-to-etc/climber") == b"../../../../../../etc/passwd"


def test_refusals(guest: GuestTree) -> None:
    with pytest.raises(GuestFileNotFoundError):
        guest.stat(b"/etc/dangling")
    with pytest.raises(GuestNotADirectoryError):
        guest.stat(b"/etc/passwd/x")
    with pytest.raises(GuestIsADirectoryError):
        guest.open(b"/etc")
    with pytest.raises(GuestNotAFileError):
        guest.open(b"/fifo")
    with pytest.raises(GuestFileTooLargeError):
        guest.read(b"/etc/passwd", limit=3)
    for bad in (b"", b"etc/passwd", b"/a\0b", b"/" + b"x" * 70000):
        with pytest.raises(GuestOperationError):
            guest.resolve(bad)


def test_walk_sees_everything_once(guest: GuestTree) -> None:
    paths = [path for path, _, _ in guest.walk(b"/")]
    assert b"/boot/kernel" in paths
    assert b"/odd\n\xff/x" in paths
    assert len(paths) == len(set(paths))


def test_walk_ends_in_a_looped_directory() -> None:
    loop: dict[bytes, object] = {b"f": b"1"}
    loop[b"again"] = loop
    guest = GuestTree([Mount(b"/", "/dev/sda", MemoryTree(loop))])
    assert [path for path, _, _ in guest.walk(b"/")] == [b"/again", b"/f"]


def test_walk_stops_at_depth() -> None:
    deep: dict[bytes, object] = {}
    for _ in range(MAX_DEPTH * 2):
        deep = {b"d": deep}
    guest = GuestTree([Mount(b"/", "/dev/sda", MemoryTree(deep))])
    assert sum(1 for _ in guest.walk(b"/")) == MAX_DEPTH + 1


PART = st.sampled_from([b"etc", b"..", b".", b"", b"passwd", b"self", b"boot", b"link-to-etc"])


@given(st.lists(PART, max_size=12))
def test_no_path_leaves_the_guest(parts: list[bytes]) -> None:
    guest = GuestTree([Mount(b"/", "/dev/sda2", MemoryTree(ROOT))])
    try:
        resolved = guest.resolve(b"/" + b"/".join(parts))
    except GuestOperationError:
        return
    assert resolved.startswith(b"/")
    assert b".." not in resolved.split(b"/")
