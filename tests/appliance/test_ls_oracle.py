"""ls against virt-ls: the same bytes, but for what only its appliance knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance

Image = Callable[[str], Path]


@pytest.mark.parametrize(
    "words",
    [
        ["/bin", "/etc"],
        ["-R", "/etc/apt"],
        ["-R", "/"],
        ["-lR", "-h", "/usr/share/doc"],
        ["-lR", "--csv", "--times", "--checksum", "/var/lib/dpkg"],
    ],
)
def test_direct(words: list[str], image: Image) -> None:
    disk = image("debian-lvm")
    options = [word for word in words if word.startswith("-")]
    folders = [word for word in words if not word.startswith("-")]
    result = imgtools("ls", *options, "--engine", "direct", "-a", disk, *folders)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-ls", *options, "-a", disk, *folders)


@pytest.mark.parametrize("engine", ["direct", "appliance"])
def test_every_column(engine: str, image: Image) -> None:
    disk = image("debian-lvm")
    options = ["-lR", "--uids", "--time-t", "--extra-stats", "--checksum=crc"]
    ours = imgtools("ls", *options, "--engine", engine, "-a", disk, "/etc").lines
    theirs = virt("virt-ls", *options, "-a", disk, "/etc").decode().splitlines()
    # The device number of a logical volume is the appliance's and says nothing of the guest.
    assert ours == [line.replace(" 253:0 ", " 0:0 ", 1) for line in theirs]


@pytest.mark.parametrize("folder", ["/etc", "/"])
def test_long(folder: str, image: Image) -> None:
    disk = image("debian-lvm")
    ours = imgtools("ls", "-l", "--engine", "direct", "-a", disk, folder).lines
    theirs = virt("virt-ls", "-l", "-a", disk, folder, dated=True).decode().splitlines()
    if folder == "/":
        # virt-ls shows its own root above the guest's; in the guest, / is above itself.
        at = next(n for n, line in enumerate(theirs) if line.endswith(" .."))
        theirs[at] = next(line for line in theirs if line.endswith(" .")) + "."
    assert ours == theirs
