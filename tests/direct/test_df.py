"""df without an oracle: its forms agree with each other and with statvfs's meaning."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]


def test_csv_and_json_say_the_same(image: Image) -> None:
    disk = image("debian-lvm")
    rows = list(csv.DictReader(io.StringIO(imgtools("df", "--csv", "-a", disk).text)))
    document = json.loads(imgtools("df", "--json", "-a", disk).stdout)
    (guest,) = document["result"]
    assert (guest["name"], guest["uuid"], guest["error"]) == (disk.name, None, None)
    assert document["engine"] == guest["engine"] == "direct"
    assert [row["Filesystem"] for row in rows] == [one["device"] for one in guest["filesystems"]]
    for row, one in zip(rows, guest["filesystems"], strict=True):
        assert int(row["1K-blocks"]) == one["size"] // 1024
        assert int(row["Used"]) == one["used"] // 1024
        assert int(row["Available"]) == one["available"] // 1024
        assert one["inodes_used"] + one["inodes_free"] == one["inodes"]


def test_a_long_name_moves_the_numbers_to_the_next_line(crafted: Path, tmp_path: Path) -> None:
    disk = tmp_path / ("n" * 40 + ".img")
    disk.symlink_to(crafted)
    lines = imgtools("df", "-a", disk).lines
    assert lines[1] == f"{disk.name}:/dev/sda"
    assert lines[2].startswith(" " * 36)


def test_a_bad_image_prints_nothing_on_stdout(tmp_path: Path) -> None:
    result = imgtools("df", "-a", tmp_path / "missing")
    assert (result.code, result.stdout) == (4, b"")
    assert result.stderr.count("\n") == 1


def test_control_characters_of_a_file_name_stay_off_the_table(
    crafted: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "a\x1b[2Jb"
    disk.symlink_to(crafted)
    assert "\\x1b[2J" in imgtools("df", "-a", disk).text


def test_verbose_says_which_engine(crafted: Path) -> None:
    result = imgtools("df", "-v", "-a", crafted)
    assert "engine direct" in result.stderr
