"""copy-out: everything as it was, nothing outside the folder, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import ODD_NAMES, SPARSE_SIZE, TAIL
from tests.direct.extracted import assert_holds_the_tree, names_in

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@as_root
@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs-flat", "squashfs"])
def test_everything_is_as_the_fixture_was_made(name: str, image: Image, tmp_path: Path) -> None:
    mount = ("-m", "/dev/sda") if name == "squashfs" else ()
    done = imgtools("copy-out", "-a", image(name), *mount, "/data", tmp_path)
    assert (done.code, done.stdout, done.stderr) == (0, b"", "")
    assert names_in(tmp_path) == ["data"]
    assert_holds_the_tree(tmp_path / "data")


@as_root
def test_attributes_and_holes(image: Image, tmp_path: Path) -> None:
    assert imgtools("copy-out", "-a", image("ext4"), "/data", tmp_path).code == 0
    user = tmp_path / "data/xattr/user"
    assert os.getxattr(user, "user.comment") == b"a comment"
    assert os.getxattr(user, "user.long") == b"%01000d" % 7
    sparse = (tmp_path / "data/sparse.bin").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < 1 << 20) == (16 << 20, True)


def test_who_is_not_root(image: Image, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    else:
        command = []
    # nobody may not be able to read the cache, nor this project
    disk, place = tmp_path / "disk.qcow2", tmp_path / "place"
    shutil.copy(image("ext4"), disk)
    disk.chmod(0o644)
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    done = subprocess.run(
        [*command, PROGRAM, "copy-out", "-a", disk, "/data", place],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(place)},
    )  # fmt: skip
    if "Permission denied" in done.stderr and "python" in done.stderr:
        pytest.skip("nobody may not run the interpreter")
    assert done.returncode == 0, done.stderr
    assert "2 device nodes not copied (only root can make them)" in done.stderr
    assert_holds_the_tree(place / "data", owners=False, devices=False)
    assert (place / "data/modes/setuid").stat().st_mode & 0o7777 == 0o755


@as_root
def test_a_stranger_s_image_gives_no_devices_and_no_set_id(image: Image, tmp_path: Path) -> None:
    done = imgtools("copy-out", "--untrusted", "-a", image("ext4"), "/data", tmp_path)
    assert done.code == 0
    assert "2 device nodes not copied (--untrusted)" in done.stderr
    assert not (tmp_path / "data/special/null").exists()
    assert (tmp_path / "data/modes/setuid").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "data/modes/bob").stat().st_uid == 1000


@as_root
def test_no_owner(image: Image, tmp_path: Path) -> None:
    assert imgtools("copy-out", "--no-owner", "-a", image("ext4"), "/data", tmp_path).code == 0
    assert (tmp_path / "data/modes/bob").stat().st_uid == 0
    assert (tmp_path / "data/modes/setuid").stat().st_mode & 0o7777 == 0o755


def test_paths_that_are_links_are_followed_in_the_guest(crafted: Path, tmp_path: Path) -> None:
    done = imgtools("copy-out", "-a", crafted, "/etc/link", "/etc/etc", tmp_path)
    assert done.code == 0
    assert (tmp_path / "link").read_bytes() == b"crafted\n"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "etc/host-passwd").is_symlink()
    assert {os.fsencode(p.name) for p in (tmp_path / "etc").iterdir()} >= {b"fifo", b"loop"}


def test_the_root_is_copied_as_its_content(crafted: Path, tmp_path: Path) -> None:
    small = ("copy-out", "-a", crafted, "/odd", "/etc/..", tmp_path)
    assert imgtools(*small).code == 2  # no ".."
    assert imgtools("copy-out", "-a", crafted, "/odd/", tmp_path).code == 0
    assert {os.fsencode(p.name) for p in (tmp_path / "odd").iterdir()} == {*ODD_NAMES, b"empty"}


def test_a_missing_file_stops_no_other(crafted: Path, tmp_path: Path) -> None:
    done = imgtools("copy-out", "-a", crafted, "/no1", "/etc/hostname", "/no2", tmp_path)
    assert done.code == 6
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["/no1", "/no2"]
    assert names_in(tmp_path) == ["hostname"]


def test_what_is_there_is_refused_or_merged(crafted: Path, tmp_path: Path) -> None:
    (tmp_path / "odd/kept").mkdir(parents=True)
    (tmp_path / "odd/kept/mine").write_text("mine", encoding="utf-8")
    (tmp_path / "hostname").write_text("old", encoding="utf-8")
    words = ("copy-out", "-a", crafted, "/etc/hostname", "/odd", tmp_path)
    done = imgtools(*words)
    assert (done.code, done.stdout) == (8, b"")
    assert "already has hostname -- --force" in done.stderr
    assert (tmp_path / "hostname").read_text(encoding="utf-8") == "old"
    assert imgtools(*words, "--force").code == 0
    assert (tmp_path / "hostname").read_text(encoding="utf-8") == "crafted\n"
    assert (tmp_path / "odd/kept/mine").read_text(encoding="utf-8") == "mine"
    assert len(list((tmp_path / "odd").iterdir())) == len(ODD_NAMES) + 2
    assert names_in(tmp_path) == ["hostname", "odd"]


@pytest.mark.parametrize("force", [True, False])
def test_no_link_of_the_host_is_followed(force: bool, crafted: Path, tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    place.mkdir()
    (place / "odd").symlink_to(outside)
    (place / "hostname").symlink_to(outside / "victim")
    (outside / "victim").write_text("untouched", encoding="utf-8")
    options = ["--force"] if force else []
    for name in ("/odd", "/etc/hostname"):
        done = imgtools("copy-out", *options, "-a", crafted, name, place)
        assert done.code == (0 if force and name == "/etc/hostname" else 8)
    assert names_in(outside) == ["victim"]
    assert (outside / "victim").read_text(encoding="utf-8") == "untouched"
    assert (place / "hostname").is_symlink() is not force


def test_a_sparse_file_beyond_4_gib(crafted: Path, tmp_path: Path) -> None:
    assert imgtools("copy-out", "-a", crafted, "/sparse", tmp_path).code == 0
    found = (tmp_path / "sparse").stat()
    assert (found.st_size, found.st_blocks * 512 <= 1 << 17) == (SPARSE_SIZE, True)
    with (tmp_path / "sparse").open("rb") as stream:
        stream.seek(-len(TAIL), os.SEEK_END)
        assert stream.read() == TAIL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_nothing_is_left(number: int, crafted: Path, tmp_path: Path) -> None:
    for attempt in range(10):  # a copy may be done before the signal comes
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with subprocess.Popen(
            ["env", "--default-signal=INT", PROGRAM, "copy-out", "-a", crafted, "/sparse", folder],
            stderr=subprocess.PIPE, text=True,
        ) as child:  # fmt: skip
            while not any(folder.iterdir()):
                time.sleep(0.001)
            child.send_signal(number)
            assert child.stderr is not None
            assert "Traceback" not in child.stderr.read()
        if child.returncode != 0:
            break
    assert child.returncode == 128 + number
    assert names_in(folder) == []


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 256 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(crafted: Path, tiny: Path) -> None:
    done = imgtools("copy-out", "-a", crafted, "/etc/hostname", "/binary", tiny)
    assert (done.code, done.stdout) == (1, b"")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert names_in(tiny) == []


def test_bad_words(crafted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words, code, complaint in [
        (("-a", crafted, "/etc"), 2, "copy what where"),
        (("-a", crafted, "/etc", tmp_path / "none"), 1, "No such file or directory -- name an"),
        (("-a", crafted, "/etc", tmp_path / "file"), 1, "Not a directory"),
        (("-a", crafted, "etc", tmp_path), 2, "name a path from /"),
        (("-a", crafted, "/etc", "/usr/../etc", tmp_path), 2, "without .."),
        (("-a", crafted, "/etc", "/odd/etc", tmp_path), 2, "same last component"),
    ]:
        done = imgtools("copy-out", *words)
        assert (done.code, done.stdout) == (code, b""), done.stderr
        assert complaint in done.stderr
    assert names_in(tmp_path) == ["file"]


def test_json_and_progress(crafted: Path, tmp_path: Path) -> None:
    words = ("--json", "--progress", "json", "-a", crafted, "/binary", tmp_path)
    done = imgtools("copy-out", *words)
    result = json.loads(done.stdout)["result"]
    assert result == {"files": 1, "bytes": 1_280_000, "failed": 0}
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-1] == {"type": "progress", "bytes": 1_280_000, "files": 1}


def test_damage_half_way_begins_again(
    crafted: Path, tmp_path: Path, damaged_half_way: list[object]
) -> None:
    from imgtools.model.disks import DiskRequest
    from imgtools.workflow.copy_out import copy_out
    from imgtools.workflow.selection import DiskArguments

    arguments = DiskArguments(disks=(DiskRequest(path=crafted, format="raw"),))
    outcome = copy_out(arguments, [b"/odd", b"/binary", b"/etc/hostname"], tmp_path)
    assert (outcome.result.failures, outcome.reason) == ([], "a block is bad")
    assert len(damaged_half_way) == 2
    assert outcome.result.size == 1_280_000 + 8 + sum(map(len, ODD_NAMES))
    assert names_in(tmp_path) == ["binary", "hostname", "odd"]
    copied = (tmp_path / "binary").read_bytes()
    assert hashlib.sha256(copied).digest() == hashlib.sha256(bytes(range(256)) * 5000).digest()


def test_a_bar_on_a_terminal_only_and_gone_at_the_end(crafted: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [PROGRAM, "copy-out", "-a", crafted, "/sparse", tmp_path]
    with subprocess.Popen(words, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert child.returncode == 0
    assert b"1 files" in shown
    assert b"GB" in shown
    assert shown.endswith(b"\x1b[2K")
    piped = imgtools("copy-out", "--force", "-a", crafted, "/etc/hostname", tmp_path)
    assert piped.stderr == ""
