"""Volumes and filesystems that only the appliance reads: what users then see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance

Image = Callable[[str], Path]
Disks = Callable[[str], list[Path]]

VOLUME = "/dev/mapper/ldm_vol_FIXTURE-Dg0_"
LINES = b"".join(b"line %d\n" % number for number in range(20_000))


def added(paths: list[Path]) -> list[str | Path]:
    return [word for path in paths for word in ("-a", path)]


# --- Windows dynamic disks -----------------------------------------------------------------------


def test_ldm_is_listed_as_virt_filesystems_does(disks: Disks) -> None:
    """But once: virt-filesystems shows each volume as a device-mapper device as well."""
    words = ["--all", "--long", "--uuids", *added(disks("ldm"))]
    result = imgtools("filesystems", *words)
    assert (result.code, result.stderr) == (0, "")
    theirs = virt("virt-filesystems", *words).splitlines()
    assert result.stdout.splitlines() == list(dict.fromkeys(theirs))


def test_ldm_partitions_that_no_table_lists_are_not_filesystems(disks: Disks) -> None:
    """virt-filesystems ends with an error of sfdisk here."""
    shown = imgtools("filesystems", *added(disks("ldm-fresh")))
    names = [VOLUME + name for name in ("Stripe1", "Volume1", "Volume2")]
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.lines == names


@pytest.mark.parametrize(
    ("volume", "path", "content"),
    [
        ("Volume1", "/data/hello.txt", b"hello\n"),
        ("Volume2", "/lines.txt", LINES),
        ("Stripe1", "/lines.txt", LINES),
    ],
)
def test_ldm_volumes_are_read(volume: str, path: str, content: bytes, disks: Disks) -> None:
    shown = imgtools("cat", "-v", *added(disks("ldm")), "-m", VOLUME + volume, path)
    assert shown.stdout == content
    assert "engine appliance (/dev/sda: LDM partition table)" in shown.stderr


def test_ldm_without_one_of_its_disks(disks: Disks) -> None:
    """What lies on the disk that is there can be used."""
    alone = added(disks("ldm")[:1])
    assert imgtools("filesystems", *alone).lines == [VOLUME + "Volume1"]
    assert imgtools("cat", *alone, "-m", VOLUME + "Volume1", "/data/hello.txt").stdout == b"hello\n"


# --- UFS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ufs1", "ufs2"])
def test_ufs_is_listed_as_virt_filesystems_does(name: str, image: Image) -> None:
    words = ["--all", "--long", "--uuids", "-a", image(name)]
    result = imgtools("filesystems", *words)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-filesystems", *words)


def test_ufs_is_read_without_telling_its_kind(image: Image) -> None:
    """virt-ls must be told."""
    words = ["-lR", "--checksum", "-a", image("ufs1"), "-m"]
    result = imgtools("ls", *words, "/dev/sda", "/data")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-ls", *words, "/dev/sda:/:ufstype=44bsd:ufs", "/data")


def test_a_ufs_that_linux_cannot_mount(image: Image) -> None:
    result = imgtools("ls", "-a", image("ufs2"), "-m", "/dev/sda", "/")
    assert (result.code, result.stdout) == (6, b"")
    assert result.stderr.startswith("imgtools: /dev/sda: cannot be mounted: ")
    assert result.stderr.count("\n") == 1
