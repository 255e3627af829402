"""The argument of -m."""

from __future__ import annotations

import pytest

from imgtools.errors import UsageError
from imgtools.guest.mounting import MountRequest, parse_mount, parse_mounts

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
