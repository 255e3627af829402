"""The argument of -m."""

from __future__ import annotations

import pytest

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.mounting import (
    MountRequest,
    parse_mount,
    parse_mount_options,
    parse_mounts,
    refuse_unmounted,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/sda1", MountRequest(device="/dev/sda1")),
        ("/dev/sda1:/", MountRequest(device="/dev/sda1")),
        ("/dev/vg/lv:/srv//data/", MountRequest(device="/dev/vg/lv", mountpoint=b"/srv/data")),
        ("/dev/sda1:/:ro,noatime:ext4", MountRequest(device="/dev/sda1", fstype="ext4")),
        ("/dev/sda1::ro", MountRequest(device="/dev/sda1")),
        ("btrfsvol:/dev/sda2/@home:/home", MountRequest(
            device="btrfsvol:/dev/sda2/@home", mountpoint=b"/home")),
        ("/dev/sda2:/:subvol=/@home", MountRequest(device="btrfsvol:/dev/sda2/@home")),
        ("UUID=1234-ABCD:/boot/efi", MountRequest(
            device="UUID=1234-ABCD", mountpoint=b"/boot/efi")),
    ],
)  # fmt: skip
def test_parsed(text: str, expected: MountRequest) -> None:
    assert parse_mount(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":/",
        "/dev/sda1:relative",
        "/dev/sda1:/:rw",
        "/dev/sda1:/:ro,loop",
        "/dev/sda1:/:subvol=",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_mount(text)


def test_together_they_need_a_root_and_no_place_twice() -> None:
    assert len(parse_mounts(["/dev/sda2:/boot", "/dev/sda1"])) == 2
    assert parse_mounts([]) == []
    with pytest.raises(UsageError, match="nothing is mounted on /"):
        parse_mounts(["/dev/sda2:/boot"])
    with pytest.raises(UsageError, match="one mountpoint"):
        parse_mounts(["/dev/sda1", "/dev/sda2:/"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("/:noatime", {b"/": "noatime"}),
        ("/:rw,nodiratime;/boot/:sync;", {b"/": "rw,nodiratime", b"/boot": "sync"}),
        ("/a:context=x:y", {b"/a": "context=x:y"}),
    ],
)
def test_mount_options(text: str, expected: dict[bytes, str]) -> None:
    assert parse_mount_options(text) == expected


@pytest.mark.parametrize("text", ["/", "/:", "boot:sync", ":sync", "/:a;/:b", "/b:x;/b/:y"])
def test_bad_mount_options(text: str) -> None:
    with pytest.raises(UsageError, match="--mount-options"):
        parse_mount_options(text)


def test_mount_options_of_what_is_not_mounted() -> None:
    refuse_unmounted({b"/": "sync"}, [b"/", b"/boot"])
    with pytest.raises(
        GuestOperationError, match="nothing of the guest is mounted on /srv"
    ) as error:
        refuse_unmounted({b"/srv": "sync"}, [b"/", b"/boot"])
    assert error.value.hint == "there are: /, /boot"
