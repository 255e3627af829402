"""ls: every form, odd names, and JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import ODD_NAMES

pytestmark = pytest.mark.direct


def test_names_are_exact_bytes_sorted(crafted: Path) -> None:
    result = imgtools("ls", "-a", crafted, "/odd")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == b"".join(name + b"\n" for name in sorted([*ODD_NAMES, b"empty"]))


def test_a_terminal_gets_safe_names(crafted: Path) -> None:
    leader, follower = pty.openpty()
    subprocess.run([PROGRAM, "ls", "-a", crafted, "/odd"], stdout=follower, check=True)
    os.close(follower)
    shown = os.read(leader, 10000)
    os.close(leader)
    assert b"\x1b" not in shown
    assert b"\\x1b[2Jescape" in shown
    assert b"new\\x0aline" in shown


def test_json_carries_the_raw_bytes_of_a_bad_name(crafted: Path) -> None:
    document = json.loads(imgtools("ls", "--json", "-a", crafted, "/odd").stdout)
    assert (document["schema"], document["engine"]) == ("imgtools/ls", "direct")
    bad = [entry for entry in document["result"] if "name_base64" in entry]
    assert [base64.b64decode(entry["name_base64"]) for entry in bad] == [b"\xff\xfe bad utf-8"]
    names = {entry["name"] for entry in document["result"]}
    assert {"new\nline", "empty", "\\xff\\xfe bad utf-8"} <= names


def test_long_json_has_numbers_and_targets(crafted: Path) -> None:
    document = json.loads(
        imgtools("ls", "-lR", "--checksum=sha256", "--json", "-a", crafted, "/etc").stdout
    )
    entries = {entry["name"]: entry for entry in document["result"]}
    hostname = entries["/etc/hostname"]
    assert (hostname["type"], hostname["size"], hostname["device"]) == ("-", 8, "/dev/sda")
    assert hostname["checksum"] == hashlib.sha256(b"crafted\n").hexdigest()
    assert entries["/etc/link"]["target"] == "/etc/hostname"
    assert entries["/etc/fifo"]["type"] == "p"
    assert entries["/etc"]["type"] == "d"


def test_recursive_names_are_relative_and_sorted(crafted: Path) -> None:
    below = imgtools("ls", "-R", "-a", crafted, "/deep")
    assert below.lines == ["/er", "/er/est"]
    everything = imgtools("ls", "-R", "-a", crafted, "/").stdout
    assert b"deep/er/est\n" in everything
    assert b"\n/" not in everything


def test_a_folder_behind_a_link(crafted: Path) -> None:
    plain = imgtools("ls", "-a", crafted, "/etc").stdout
    assert imgtools("ls", "-a", crafted, "/etc/etc").stdout == plain
    lines = imgtools("ls", "-lR", "-a", crafted, "/etc/etc").lines
    assert lines[0] == "l 0777          4 /etc/etc -> /etc"
    assert any(line.endswith(" /etc/etc/hostname") for line in lines)


def test_csv_quotes_only_where_needed(crafted: Path) -> None:
    result = imgtools("ls", "-lR", "--csv", "--checksum=md5", "-a", crafted, "/odd")
    digest = hashlib.md5(b'space, comma "quote"', usedforsecurity=False).hexdigest()
    assert f'-,0644,20,{digest},"/odd/space, comma ""quote"""\n'.encode() in result.stdout
    assert b"d,0755,1024,,/odd/empty\n" in result.stdout


def test_a_bare_checksum_is_md5_and_takes_no_word(crafted: Path) -> None:
    result = imgtools("ls", "-lR", "--checksum", "-a", crafted, "/deep", "/etc")
    assert result.code == 0
    assert hashlib.md5(b"crafted\n", usedforsecurity=False).hexdigest() in result.text


@pytest.mark.parametrize("form", [[], ["-l"], ["-R"], ["-lR"]])
def test_what_is_no_folder_is_exit_6_and_lists_the_others(form: list[str], crafted: Path) -> None:
    good = imgtools("ls", *form, "-a", crafted, "/deep")
    result = imgtools("ls", *form, "-a", crafted, "/etc/hostname", "/deep", "/missing")
    assert result.code == 6
    assert result.stdout == good.stdout
    complaints = result.stderr.splitlines()
    assert len(complaints) == 2
    assert "/etc/hostname" in complaints[0]
    assert "/missing" in complaints[1]


def test_long_form_is_what_ls_prints(tmp_path: Path) -> None:
    """Against the real ls on the files from which the image is made."""
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    for folder_name in ("bin", "x/sub"):
        (folder / folder_name).mkdir(parents=True)
    (folder / "etc/fstab").touch()
    (folder / "etc/hosts").touch()
    (folder / "x/big").write_bytes(b"x" * 123456)
    (folder / "x/old").touch()
    os.utime(folder / "x/old", (10**9, 10**9))
    (folder / "x/link").symlink_to("big")
    (folder / "x/setuid").touch()
    (folder / "x/setuid").chmod(0o4711)
    (folder / "x/sticky").mkdir()
    (folder / "x/sticky").chmod(0o1777)
    os.mknod(folder / "x/null", 0o020666, os.makedev(1, 3))
    os.mknod(folder / "x/sda", 0o060660, os.makedev(8, 100))
    os.chown(folder / "x/old", 1000, 12345)
    from tests.direct.crafted import make_ext4

    disk = make_ext4(folder, tmp_path / "x.img", 16 << 20)
    result = imgtools("ls", "-l", "-a", disk, "/x")
    theirs = subprocess.run(
        ["ls", "-lan", folder / "x"],
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    # The first line counts blocks, and "." and ".." have sizes, of two different filesystems.
    ours = result.lines
    assert [_without_size(line) for line in ours[1:3]] == [
        _without_size(line) for line in theirs[1:3]
    ]
    assert [line for line in ours[3:] if "sub" not in line and "sticky" not in line] == [
        line for line in theirs[3:] if "sub" not in line and "sticky" not in line
    ]


def _without_size(line: str) -> list[str]:
    words = line.split()
    return words[:1] + words[2:4] + words[-1:]
