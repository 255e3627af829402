"""filesystems without an oracle: selection of rows, JSON, labels from a stranger."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]


def test_which_rows(image: Image) -> None:
    disk = image("debian-lvm")

    def names(*options: str) -> list[str]:
        return imgtools("filesystems", *options, "-a", disk).lines

    assert names() == ["/dev/sda1", "/dev/sda2", "/dev/debian-vg/home", "/dev/debian-vg/root"]
    assert names("--filesystems") == names()
    assert names("--extra") == [*names(), "/dev/debian-vg/swap"]
    assert names("--lvs") == [f"/dev/debian-vg/{name}" for name in ("home", "root", "swap")]
    assert names("--vgs", "--pvs") == ["/dev/debian-vg", "/dev/sda3"]
    assert names("--parts", "--blkdevs") == [*(f"/dev/sda{n}" for n in (1, 2, 3)), "/dev/sda"]
    parts = names("--extra"), names("--lvs"), names("--vgs", "--pvs"), names("--parts", "--blkdevs")
    assert names("--all") == [name for part in parts for name in part]


def test_json_has_every_column(image: Image) -> None:
    document = json.loads(
        imgtools("filesystems", "--all", "--json", "-a", image("debian-lvm")).stdout
    )
    rows = {(row["type"], row["name"]): row for row in document["result"]}
    root = rows["filesystem", "/dev/debian-vg/root"]
    assert (root["vfs_type"], root["label"], root["size"] > 10**9) == ("ext4", "root", True)
    assert rows["vg", "/dev/debian-vg"]["parents"] == ["/dev/sda3"]
    assert rows["partition", "/dev/sda1"]["mbr_id"] is None


def test_a_label_cannot_move_the_cursor(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(8 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "a\x1b[2Jb", disk], check=True)
    result = imgtools("filesystems", "-l", "-a", disk)
    assert result.code == 0
    assert b"\x1b" not in result.stdout
    assert "a\\x1b[2Jb" in result.text


def test_an_empty_disk_lists_the_disk_and_no_filesystem(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(8 << 20)
    assert imgtools("filesystems", "--format=raw", "-a", disk).text == ""
    result = imgtools("filesystems", "--all", "--format=raw", "-a", disk)
    assert result.lines[-1] == "/dev/sda"
