"""df against virt-df: the same numbers, to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance

Image = Callable[[str], Path]


@pytest.mark.parametrize("name", ["debian-lvm", "debian-plain"])
@pytest.mark.parametrize("engine", ["direct", "appliance"])
def test_csv(name: str, engine: str, image: Image) -> None:
    disk = image(name)
    result = imgtools("df", "--csv", "--engine", engine, "-a", disk)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-df", "--csv", "-a", disk)


@pytest.mark.parametrize("option", ["-h", "-i"])
def test_table(option: str, image: Image) -> None:
    disk = image("debian-lvm")
    result = imgtools("df", option, "--engine", "direct", "-a", disk)
    assert result.stdout == virt("virt-df", option, "-a", disk)


def test_several_images_are_one_guest(image: Image) -> None:
    disks = [image("debian-lvm"), image("debian-plain")]
    result = imgtools("df", "--engine", "direct", "-a", disks[0], "-a", disks[1])
    assert result.stdout == virt("virt-df", "-a", disks[0], "-a", disks[1])
    assert imgtools("df", "--engine", "direct", *disks).stdout == result.stdout
