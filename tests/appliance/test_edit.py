"""edit: only the text changes; what does not change is not touched, and nothing is started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import (
    Launches,
    assert_sound,
    change,
    content,
    found,
    is_there,
    overlay_of,
    read,
    state,
    stock,
)
from tests.cli import imgtools

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]
PORT = ("-e", r"s/(port ?=? ?)80/${1}8080/")


def raw(disk: Path) -> tuple[str | Path, ...]:
    return ("--format", "raw", "-a", disk)


def test_only_the_text_changes(disk: Path) -> None:
    names = ["plain.conf", "dos.ini", "set-id", "hard-1", "hard-2"]
    paths = [f"/etc/app/{name}" for name in names] + ["/usr/bin/ping"]
    before = {path: found(disk, path) for path in paths}
    links = ("/links/absolute", "/links/climbing")
    edited = [path for path in paths if path != "/etc/app/hard-2"]
    done = change("edit", *raw(disk), *edited, *links, "-b", ".orig", *PORT)
    assert "made /etc/app/absolute.orig (backup)" in done.lines
    assert "edited /links/climbing" in done.lines

    assert content(disk, "/etc/app/plain.conf") == b"port = 8080\nname = a\n"
    assert content(disk, "/etc/app/dos.ini") == b"[a]\r\nport=8080\r\nlast=1"
    assert content(disk, "/usr/bin/ping") == b"#!/bin/sh\n# port 8080\n"
    for path in paths:
        now = found(disk, path)
        assert before[path] == now.__class__(**{**_fields(now), "mtime": before[path].mtime}), (
            f"{path}: {now}"
        )
        assert now.mtime > before[path].mtime
    for path in edited:
        kept = found(disk, f"{path}.orig")
        same = {**_fields(before[path]), "inode": kept.inode, "links": 1}
        assert kept == kept.__class__(**same), path
    assert content(disk, "/etc/app/plain.conf.orig") == b"port = 80\nname = a\n"
    # ACL, label and capability were there at all
    assert len(before["/etc/app/plain.conf"].attributes) == 3
    assert "security.capability" in before["/usr/bin/ping"].attributes[0]

    # one file with two names
    assert content(disk, "/etc/app/hard-2") == content(disk, "/etc/app/hard-1") == b"port 8080\n"
    # links are still links; what they lead to in the guest was edited
    for name in ("absolute", "climbing"):
        assert found(disk, f"/links/{name}").kind == "symlink"
        assert content(disk, f"/etc/app/{name}") == b"port 8080\n"
    assert_sound(disk)


def _fields(one: object) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__slots__}  # type: ignore[attr-defined]


def test_what_cannot_be_edited_is_refused_before_a_launch(disk: Path, tmp_path: Path) -> None:
    launches = Launches(tmp_path)
    before = state(disk)
    for path, code, why in [
        ("/etc/app/binary", 6, "a binary file (it holds NUL bytes) is not edited"),
        ("/etc/app/big", 6, "larger than 100 MiB, too large to edit"),
        ("/etc/app", 6, "/etc/app: is a directory in the guest"),
        ("/etc/app/not-there", 6, "/etc/app/not-there: no such file"),
        ("/links/dangling", 6, "no such file"),
        ("/links/loop", 6, "too many"),
        ("etc/hosts", 2, "'etc/hosts': not an absolute path"),
    ]:
        done = imgtools("edit", *raw(disk), path, *PORT, **launches.environment)
        assert (done.code, done.stdout, why in done.stderr) == (code, b"", True), done.stderr
        assert len(done.stderr.splitlines()) == 1
    for words, code, why in [
        (("/etc/hosts", "-e", "s/a"), 2, "-e: no closing /"),
        (("/etc/hosts", "-b", "/x", *PORT), 2, "may not hold a slash"),
        (("--engine", "direct", "/etc/app/plain.conf", *PORT), 2, "through the appliance"),
        ((), 2, "which file?"),
        (("/etc/app/plain.conf", "-e", 'die "no" if /port/'), 6, "-e gave up at line 1: no"),
    ]:
        done = imgtools("edit", *raw(disk), *words, **launches.environment)
        assert (done.code, done.stdout, why in done.stderr) == (code, b"", True), done.stderr
    assert imgtools("edit", "/etc/hosts", *PORT).code in (2, 3, 4)
    assert (state(disk), launches.count()) == (before, 0)


def test_one_file_that_fails_keeps_all_others_as_they_were(disk: Path) -> None:
    before = state(disk)
    words = ("/etc/app/plain.conf", "/etc/app/binary", "/etc/app/dos.ini")
    done = imgtools("edit", *raw(disk), *words, *PORT)
    assert (done.code, done.stdout) == (6, b"")
    assert "/etc/app/binary" in done.stderr
    assert state(disk) == before


def test_what_does_not_change_is_not_written_and_nothing_is_started(
    disk: Path, tmp_path: Path
) -> None:
    launches = Launches(tmp_path)
    before = state(disk)
    same = ("/etc/app/plain.conf", "/etc/app/dos.ini")
    for words in (
        ("edit", *raw(disk), *same, "-b", ".orig", "-e", "s/never there/x/"),
        ("edit", *raw(disk), *same, "-e", r"s/(port)/$1/"),
        ("rm", "-f", *raw(disk), "/not/there"),
        ("mkdir", "-p", *raw(disk), "/etc/app"),
        ("chmod", "-R", *raw(disk), "u+r", "/srv"),
        ("chown", *raw(disk), "bob:wheel", "/etc/app/plain.conf"),
        ("truncate", *raw(disk), "-s", "7", "/srv/../srv/kept", "-s", "5"),
        ("ln", "-s", "-f", *raw(disk), "/srv/deep", "/into"),
        ("touch", "--no-create", *raw(disk), "/not/there"),
    ):
        done = imgtools(*words, **launches.environment)
        assert (done.code, done.stdout) == (0, b""), words
        assert done.stderr == "imgtools: nothing to change: the guest is so already\n"
    assert (state(disk), launches.count()) == (before, 0)


def test_the_user_s_editor(disk: Path, tmp_path: Path) -> None:
    script, seen = tmp_path / "editor", tmp_path / "seen"
    before = state(disk)

    def edit(body: str, **environment: str) -> tuple[int, str]:
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        named = {"EDITOR": str(script), "VISUAL": "", **environment}
        done = imgtools("edit", *raw(disk), "/etc/app/dos.ini", "/etc/app/plain.conf", **named)
        return done.code, done.stderr

    code, said = edit(f'cp "$1" {seen}; echo broken >> "$1"; exit 1')
    assert (code, "the editor ended with status 1: nothing was changed" in said) == (1, True)
    assert seen.read_bytes() == b"[a]\r\nport=80\r\nlast=1"
    assert edit("true") == (0, "imgtools: nothing to change: the guest is so already\n")
    code, said = edit("", EDITOR="no-such-editor-anywhere")
    assert (code, "no-such-editor-anywhere" in said) == (7, True)
    assert edit("", EDITOR="'open quote")[0] == 2
    assert edit('rm "$1"')[0] == 1
    assert state(disk) == before

    # VISUAL before EDITOR, with words of its own; as an editor that knows only \n would leave it
    mode = 'stat -c %a "$2" "$(dirname "$2")" > ' + str(seen)
    body = f'{mode}; tr -d "\\r" < "$2" | sed s/80/443/ > "$2.new"; mv "$2.new" "$2"'
    assert edit(body, VISUAL=f"{script} --wait", EDITOR="false") == (0, "")
    assert seen.read_text().split()[1] == "700"
    assert content(disk, "/etc/app/dos.ini") == b"[a]\r\nport=443\r\nlast=1"
    assert content(disk, "/etc/app/plain.conf") == b"port = 443\nname = a\n"
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("imgtools-edit-*"))


def test_a_link_that_climbs_out_never_leaves_the_guest(disk: Path) -> None:
    host = Path("/etc/hostname").read_bytes()
    change("edit", *raw(disk), "/links/host", "-e", "s/changing/moved/")
    assert content(disk, "/etc/hostname") == b"moved.example.com\n"
    assert Path("/etc/hostname").read_bytes() == host
    assert not is_there(disk, "/links/host.orig")


def test_virt_cat_sees_the_change_on_lvm(image: Image, tmp_path: Path) -> None:
    disk = overlay_of(image("debian-lvm"), tmp_path / "disk.qcow2")
    original = read(disk, "/etc/fstab")
    done = change("edit", "-a", disk, "/etc/fstab", "-e", "s/errors=remount-ro/defaults/")
    assert done.lines == ["edited /etc/fstab"]
    expected = original.replace(b"errors=remount-ro", b"defaults")
    assert expected != original
    assert read(disk, "/etc/fstab") == expected
    assert stock("virt-cat", "-a", disk, "/etc/fstab") == expected
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
