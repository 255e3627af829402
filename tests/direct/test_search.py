"""search: what find(1) and grep(1) find in a copy of the same files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import ODD_NAMES, make_ext4, write_guest
from tests.direct.test_cat import peak_memory

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a copy keeps owners only as root")


@pytest.fixture(scope="module")
def copy(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's data on this host, metadata and all."""
    place = tmp_path_factory.mktemp("copy")
    assert imgtools("copy-out", "-a", image("ext4"), "/data", place).code == 0
    return place


CASES = [
    ([], []),
    (["--type", "f"], ["-type", "f"]),
    (["--type", "l,d"], ["-type", "l,d"]),
    (["--type", "b", "--type", "c,p"], ["-type", "b,c,p"]),
    (["--name", "*e*"], ["-name", "*e*"]),
    (["--name", "entry-00[0-4]?"], ["-name", "entry-00[0-4]?"]),
    (["--iname", "*LONG*"], ["-iname", "*LONG*"]),
    (["--name", "first", "--name", "s*"], ["(", "-name", "first", "-o", "-name", "s*", ")"]),
    (["--regex", "/modes/[sb]"], ["-regextype", "posix-extended", "-regex", ".*/modes/[sb].*"]),
    (["--size", "+199999"], ["-type", "f", "-size", "+199999c"]),
    (["--size", "3"], ["-type", "f", "-size", "3c"]),
    (["--size", "-3"], ["-type", "f", "-size", "-3c"]),
    (["--size", "+100k", "--size", "-1M"],
     ["-type", "f", "-size", "+102400c", "-size", "-1048576c"]),
    (["--uid", "1000"], ["-uid", "1000"]),
    (["--owner", "bob"], ["-uid", "1000"]),
    (["--gid", "2000000"], ["-gid", "2000000"]),
    (["--perm", "0644"], ["-perm", "0644"]),
    (["--perm", "-4000"], ["-perm", "-4000"]),
    (["--perm", "/6000"], ["-perm", "/6000"]),
    (["--perm", "000"], ["-perm", "000"]),
    (["--suid"], ["-perm", "-4000"]),
    (["--sgid", "--type", "d"], ["-perm", "-2000", "-type", "d"]),
    (["--newer", "@1999999999"], ["-newermt", "@1999999999"]),
    (["--older", "@1"], ["!", "-newermt", "@0"]),
    (["--mtime", "+100"], ["-mtime", "+100"]),
    (["--mtime", "-100"], ["-mtime", "-100"]),
]  # fmt: skip


@as_root
@pytest.mark.parametrize(("options", "expression"), CASES)
def test_find_finds_the_same(
    options: list[str], expression: list[str], copy: Path, image: Image
) -> None:
    done = imgtools("search", "-0", "-a", image("ext4"), "/data", *options)
    assert (done.code, done.stderr) == (0, "")
    expected = subprocess.run(
        ["find", "data", *expression, "-print0"], cwd=copy, check=True, capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    found = set(done.stdout.split(b"\0"))
    assert found == {b"/" + name if name else b"" for name in expected.stdout.split(b"\0")}
    assert len(found) > 1


@pytest.mark.parametrize("pattern", ["line 1999", "^hello$", "names$", r"\d{4}\b", "o"])
def test_grep_finds_the_same(pattern: str, copy: Path, image: Image) -> None:
    done = imgtools("search", "-0", "-a", image("ext4"), "/data", "--content", pattern)
    expected = subprocess.run(
        ["grep", "-rlaZP", pattern, "data"], cwd=copy, check=False, capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    assert set(done.stdout.split(b"\0")) == {
        b"/" + name if name else b"" for name in expected.stdout.split(b"\0")
    }


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    root = folder / "root"
    root.mkdir()
    write_guest(root)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:33:33::/:\n", encoding="utf-8")
    (root / "etc/group").write_text("root:x:0:\nweb:x:33:\n", encoding="utf-8")
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "open/file").write_bytes(b"x" * 300_000 + b"SECRET" + b"y" * 3_000_000 + b"\nKEY\n")
    (root / "open/file").chmod(0o666)
    (root / "open/seam").write_bytes(b"z" * ((1 << 20) - 3) + b"NEEDLE" + b"z" * (1 << 20))
    os.mkfifo(root / "open/pipe", 0o666)
    if os.geteuid() == 0:
        os.chown(root / "open/seam", 33, 33)
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        os.setxattr(root / "open/seam", "security.capability", capability)
    return make_ext4(root, folder / "guest.img")


def test_world_writable(guest: Path) -> None:
    done = imgtools("search", "--paths", "-a", guest, "--world-writable")
    assert done.lines == ["/open", "/open/file"]


@as_root
def test_capabilities_and_owners_by_the_guest_s_names(guest: Path) -> None:
    done = imgtools("search", "--paths", "-a", guest, "--capabilities")
    assert done.lines == ["/open/seam"]
    done = imgtools("search", "-a", guest, "--owner", "web", "--group", "web")
    assert done.lines[0].split()[1:3] == ["web", "web"]
    done = imgtools("search", "-a", guest, "--owner", "nobody-here")
    assert (done.code, done.stdout) == (2, b"")


def test_content_in_lines_longer_than_memory_likes(guest: Path) -> None:
    result = found(guest, "/open", "--content", "SECRET")
    assert [one["path"] for one in result] == ["/open/file"]
    assert result[0]["match"]["line"] == 1
    assert len(result[0]["match"]["text"]) == 200
    result = found(guest, "/open", "--content", "^KEY$")
    assert result[0]["match"] == {"line": 2, "text": "KEY"}
    assert [one["path"] for one in found(guest, "/open", "--content", "NEEDLE")] == ["/open/seam"]
    assert found(guest, "/open", "--content", "KEY", "--scan", "1M") == []


def found(guest: Path, *words: str) -> list[dict[str, Any]]:
    document = json.loads(imgtools("search", "--json", "-a", guest, *words).stdout)
    assert document["schema"] == "imgtools/search"
    result: list[dict[str, Any]] = document["result"]["files"]
    return result


def test_limit_exit_codes_and_json(guest: Path) -> None:
    done = imgtools("search", "--json", "-a", guest, "--limit", "3", "--fail-on-match")
    assert done.code == 10
    result = json.loads(done.stdout)["result"]
    assert (len(result["files"]), result["limited"]) == (3, True)
    assert imgtools("search", "-a", guest, "--suid", "--fail-on-match").code == 0
    one = found(guest, "/etc/link")[0]
    assert (one["path"], one["type"], one["owner"]) == ("/etc/hostname", "-", "root")


def test_odd_names_raw_in_a_pipe_and_safe_in_json(guest: Path) -> None:
    done = imgtools("search", "-0", "-a", guest, "/odd", "--type", "f")
    assert set(done.stdout.split(b"\0")) - {b""} == {b"/odd/" + name for name in ODD_NAMES}
    names = {
        base64.b64decode(one["path_base64"]) if "path_base64" in one else one["path"].encode()
        for one in found(guest, "/odd", "--type", "f")
    }
    assert names == {b"/odd/" + name for name in ODD_NAMES}


def test_a_missing_folder_stops_no_other(guest: Path) -> None:
    done = imgtools("search", "--paths", "-a", guest, "/none", "/open", "--type", "p")
    assert (done.code, done.lines) == (6, ["/open/pipe"])
    assert "/none" in done.stderr


def test_bad_words(guest: Path) -> None:
    for words, complaint in [
        (("--size", "big"), "not a size"),
        (("--type", "x"), "--type x: unknown"),
        (("--perm", "u+s"), "not an octal mode"),
        (("--perm", "99"), "not an octal mode"),
        (("--mtime", "x"), "not a number of days"),
        (("--regex", "("), "--regex (: "),
        (("--content", "[a"), "--content [a: "),
        (("--newer", "never"), "not a time"),
        (("--json", "-0"), "cannot be combined"),
    ]:
        done = imgtools("search", *words, "-a", guest)
        assert (done.code, done.stdout) == (2, b""), done.stderr
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_file_of_4_gib_is_scanned_in_bounds(crafted: Path) -> None:
    command = [PROGRAM, "search", "-a", crafted, "/sparse", "--content", "the end", "--scan"]
    for scan, expected in (("64M", b""), ("8G", b"/sparse\n")):
        with subprocess.Popen([*command, scan, "--paths"], stdout=subprocess.PIPE) as child:
            peak = 0
            while child.poll() is None:
                peak = max(peak, peak_memory(child.pid))
            assert child.stdout is not None
            assert child.stdout.read() == expected
        assert peak < 100 << 20
