"""diff against virt-diff, and on both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]


@pytest.mark.parametrize(
    "options",
    [
        ("--content",),
        ("--csv", "--uids", "--checksum=sha256", "--xattrs"),
        ("--csv", "--times", "--time-t"),
    ],
)
def test_virt_diff_says_the_same(options: tuple[str, ...], image: Image) -> None:
    overlay = image("qcow2-on-raw")
    base = overlay.with_name("base.raw")
    words = [word for word in options if word != "--content"]  # virt-diff's default
    # SCSI disks are probed by several threads: where the two sides have not got the same kernel
    # name, virt-diff calls every file changed, by its device number.
    expected = virt("virt-diff", *words, "-a", base, "-A", overlay, chance=b"st_dev")
    done = imgtools("diff", "--no-facts", *options, "-a", base, "-A", overlay)
    assert done.code == 10
    # virt-diff prints the times of folders as zero unless it was told to compare them.
    assert without_folders(done.stdout) == without_folders(expected)


def without_folders(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line[1:3] != b",d"]


def test_both_engines_find_the_same(image: Image) -> None:
    overlay = image("qcow2-on-raw")
    words = ("diff", "--content", "--all", "--backing", overlay)
    direct = imgtools(*words, "--engine", "direct")
    appliance = imgtools(*words, "--engine", "appliance", "-v")
    assert appliance.stderr.count("engine appliance") == 2
    assert (direct.code, direct.stdout) == (appliance.code, appliance.stdout)


def test_an_unclean_side_alone_goes_to_the_appliance(image: Image) -> None:
    done = imgtools(
        "diff", "-v", "-a", image("ext4"), "-A", image("ext4-unclean"), "-m", "/dev/sda"
    )
    assert done.code == 10, done.stderr
    assert "ext4.qcow2: engine direct" in done.stderr
    assert "engine appliance" in done.stderr
