"""Commands that go through a whole tree: what they cannot enter they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.crafted import make_ext4, write_guest

pytestmark = pytest.mark.direct


def test_a_folder_too_deep_is_said_never_silently_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_guest(root)
    (root / "sparse").unlink()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    disk = make_ext4(root, tmp_path / "disk.img")
    place = tmp_path / "place"
    place.mkdir()
    for words, code in [
        (("copy-out", disk, "/d", place), 6),
        (("tar-out", disk, "/d", tmp_path / "d.tar"), 6),
        (("search", disk, "--name", "x"), 6),
        (("diff", "--no-facts", disk, disk), 0),
    ]:
        done = imgtools(*words)
        assert done.code == code, done.stderr
        assert "is too deep, or holds itself; left out" in done.stderr
    assert (place / "d/d/d").is_dir()
