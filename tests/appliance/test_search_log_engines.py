"""log and search on both engines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import journals
from tests.cli import imgtools
from tests.direct.crafted import make_ext4, write_guest

pytestmark = pytest.mark.appliance


def test_both_engines_print_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_guest(root)
    (root / "sparse").unlink()
    place = root / "var/log/journal" / journals.MACHINE
    place.mkdir(parents=True)
    shutil.copy(journals.write(tmp_path / "x.journal", journals.entries()), place)
    disk = make_ext4(root, tmp_path / "disk.img", 128 << 20)
    direct = imgtools("log", "--engine", "direct", disk)
    appliance = imgtools("log", "--engine", "appliance", disk)
    assert (appliance.code, appliance.stderr) == (0, "")
    assert appliance.stdout == direct.stdout != b""


def test_both_engines_find_the_same(image: Callable[[str], Path]) -> None:
    words = ("search", "--json", "-a", image("ext4"), "/data", "--type", "f", "--content", "e")
    direct = imgtools(*words, "--engine", "direct")
    appliance = imgtools(*words, "--engine", "appliance")
    assert (appliance.code, appliance.stderr) == (0, "")
    assert appliance.text.replace('"engine": "appliance"', '"engine": "direct"') == direct.text
