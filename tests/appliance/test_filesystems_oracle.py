"""filesystems against virt-filesystems: the same rows, columns and spaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance

Image = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("debian-lvm", ["--all", "--long", "--uuids"]),
        ("debian-lvm", ["-l", "-h"]),
        ("debian-plain", ["--csv", "--all", "--long", "--uuids"]),
        ("debian-plain", []),
        ("debian-plain", ["--parts", "--blkdevs", "--extra", "-l", "--no-title"]),
    ],
)
def test_direct(name: str, options: list[str], image: Image) -> None:
    disk = image(name)
    result = imgtools("filesystems", *options, "--engine", "direct", "-a", disk)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-filesystems", *options, "-a", disk)


def test_appliance(image: Image) -> None:
    disk = image("debian-lvm")
    options = ["--all", "--long", "--uuids"]
    result = imgtools("filesystems", *options, "--engine", "appliance", "-a", disk)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-filesystems", *options, "-a", disk)
