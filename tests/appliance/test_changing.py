"""The small writing commands and apply: what they leave, in one launch, all or nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.appliance.scratch import (
    Launches,
    assert_sound,
    change,
    content,
    found,
    is_there,
    members,
    read,
    state,
    stock,
)
from tests.cli import imgtools

pytestmark = pytest.mark.appliance


def test_every_small_command(disk: Path, tmp_path: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 20_000)  # more than one message to the appliance holds

    change("write", *raw, "/srv/text", "--content", "two\nlines", "--owner", "bob:wheel")
    assert content(disk, "/srv/text") == b"two\nlines\n"
    text = found(disk, "/srv/text")
    assert (text.mode, text.owner, text.links) == (0o644, (1000, 10), 1)

    before = found(disk, "/etc/app/plain.conf")
    change("write", *raw, "/etc/app/plain.conf", "--from", source)
    after = found(disk, "/etc/app/plain.conf")
    assert content(disk, "/etc/app/plain.conf") == source.read_bytes()
    assert (after.inode, after.mode, after.owner) == (before.inode, before.mode, before.owner)
    assert after.attributes == before.attributes
    assert len(after.attributes) == 3

    change("write", *raw, "/links/absolute", "-", "--mode", "u=rw,go=", stdin=b"\0from stdin")
    assert content(disk, "/etc/app/absolute") == b"\0from stdin"
    assert found(disk, "/etc/app/absolute").mode == 0o600
    assert found(disk, "/links/absolute").kind == "symlink"

    done = change("mkdir", "-p", *raw, "/into/new/er", "--mode", "2770", "--owner", "bob:")
    assert done.lines == ["made /into/new", "made /into/new/er"]
    assert found(disk, "/srv/deep/new/er").mode == 0o2770
    assert found(disk, "/srv/deep/new/er").owner == (1000, 1000)
    assert (found(disk, "/srv/deep/new").mode, found(disk, "/srv/deep/new").owner) == (
        0o755,
        (0, 0),
    )

    change("append-line", *raw, "/etc/app/dos.ini", "last=2", "#")
    assert content(disk, "/etc/app/dos.ini") == b"[a]\r\nport=80\r\nlast=1\r\nlast=2\r\n#\r\n"

    change("touch", *raw, "--date", "2001-02-03T04:05:06Z", "/srv/kept", "/srv/new file")
    assert found(disk, "/srv/kept").mtime == found(disk, "/srv/new file").mtime == 981173106
    assert (found(disk, "/srv/new file").mode, content(disk, "/srv/new file")) == (0o644, b"")

    change("truncate", *raw, "-s", "1M", "/srv/kept")
    assert content(disk, "/srv/kept") == b"kept\n".ljust(1 << 20, b"\0")

    change("ln", *raw, "/srv/kept", "/srv/second")
    assert found(disk, "/srv/second").inode == found(disk, "/srv/kept").inode
    change("ln", "-s", "-f", *raw, "../with space", "/srv/replaced")
    assert found(disk, "/srv/replaced").kind == "symlink"
    assert members(disk, "/srv")["./replaced"].linkname == "../with space"

    done = change("chmod", "-R", *raw, "o-rx,u-s", "/etc/app")
    assert "changed /etc/app/set-id (mode 2750)" in done.lines
    assert found(disk, "/etc/app").mode == 0o750
    done = change("chown", "-R", *raw, "bob:wheel", "/etc/app", "/links/host")
    assert {found(disk, f"/etc/app/{name}").owner for name in ("big", "set-id")} == {(1000, 10)}
    assert found(disk, "/etc/app/set-id").mode == 0o2750
    assert found(disk, "/etc/hostname").owner == (1000, 10)  # what the link leads to

    change("mv", *raw, "/srv/text", "/srv/kept", "/trap/folder")
    assert not is_there(disk, "/srv/text")
    assert found(disk, "/trap/folder/text").inode == text.inode

    done = change("rm", "-r", *raw, "/etc/app", "/trap/root", "/trap/out")
    assert not is_there(disk, "/etc/app")
    assert not is_there(disk, "/trap/root")
    assert content(disk, "/etc/passwd")  # links went, not what they led to
    assert_sound(disk)
    assert list(disk.parent.iterdir()) == [disk]


def test_refusals_of_the_small_commands(disk: Path) -> None:
    before = state(disk)
    raw = ("--format", "raw", "-a", disk)
    for words, code, why in [
        (("rm", "/not/there"), 6, "no such file"),
        (("rm", "/srv"), 6, "is a directory in the guest -- -r removes directories"),
        (("rm", "-r", "/"), 6, "/dev/sda1 is mounted on /"),
        (("rm", "-r", "/trap/root/../.."), 6, "/dev/sda1 is mounted on /"),
        (("mkdir", "/srv"), 6, "exists already in the guest"),
        (("mkdir", "-p", "/a", "--mode", "rwx"), 2, "rwx: no file mode"),
        (("chmod", "9", "/srv"), 2, "9: no file mode"),
        (("chown", "nobody-knows", "/srv"), 6, "the guest has no such user"),
        (("ln", "-s", "x", "/srv/kept"), 6, "exists already"),
        (("mv", "/srv", "/srv/deep"), 6, "lies below /srv"),
        (("mv", "/srv/kept", "/srv/replaced", "/etc/passwd"), 6, "/etc/passwd"),
        (("truncate", "-s", "-1", "/srv/kept"), 2, "-1: no size"),
        (("truncate", "-s", "9999T", "/srv/kept"), 6, "larger than the guest's filesystem allows"),
        (("write", "/srv", "--content", "x"), 6, "is a directory"),
        (("write", "/srv/x", "--from", disk.parent), 2, "no such file"),
        (("touch", "--date", "soon", "/srv/x"), 2, "soon: no time"),
        (("append-line", "/srv/none", "x"), 6, "no such file"),
        (("write", "/srv/x", "--content", "x", "--workdir", "/no/such/dir"), 8, "no such folder"),
    ]:
        done = imgtools(words[0], *raw, *words[1:])
        assert (done.code, done.stdout, why in done.stderr) == (code, b"", True), (words, done)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert state(disk) == before


STEPS = """
# one launch for all of these
write /etc/motd --content 'changed by apply' --owner 0:0
mkdir -p /opt/app/conf --mode 0750
write /opt/app/conf/app.ini --content '[app]' --mode 0640
append-line /opt/app/conf/app.ini 'port = 80' 'debug = no'
edit /opt/app/conf/app.ini -e 's/80/8080/; d if /debug/' -b .orig
chown -R mail: /opt/app
ln -s ../opt/app/conf /etc/app
touch /etc/app/made-through-a-link
rm -rf /usr/share/doc/adduser
mv /etc/issue /home/issue
write /boot/efi/startup.nsh --content 'echo off'
mkdir /home/new
chmod 1777 /home/new
mv /home/new /boot/new
truncate /etc/issue.net
"""


def test_apply_is_one_launch_and_its_dry_run_says_what_it_does(
    debian: Path, tmp_path: Path
) -> None:
    launches = Launches(tmp_path)
    steps = tmp_path / "steps.txt"
    steps.write_text(STEPS)
    before = state(debian)
    dry = change("apply", "-n", "--json", "-a", debian, steps)
    assert state(debian) == before
    planned = json.loads(dry.stdout)
    assert (planned["schema"], planned["result"]["committed"]) == ("imgtools/apply", False)
    assert planned["result"]["dry_run"] is True

    done = change("apply", "--json", "--diff", "-a", debian, steps, **launches.environment)
    assert launches.count() == 1
    result = json.loads(done.stdout)["result"]
    assert (result["committed"], result["dry_run"]) == (True, False)
    assert result["done"] == planned["result"]["done"]
    assert without_times(result["changes"]) == without_times(planned["result"]["changes"])
    changes = {one["path"]: one for one in result["changes"]}
    found_kinds = {path: one["kind"] for path, one in changes.items() if "/doc/" not in path}
    assert found_kinds == {
        "/boot/efi/startup.nsh": "added",
        "/boot/new": "added",
        "/etc/app": "added",
        "/etc/issue": "removed",
        "/etc/issue.net": "modified",
        "/etc/motd": "modified",
        "/home/issue": "added",
        "/opt/app": "added",
        "/opt/app/conf": "added",
        "/opt/app/conf/app.ini": "added",
        "/opt/app/conf/app.ini.orig": "added",
        "/opt/app/conf/made-through-a-link": "added",
    }
    assert changes["/usr/share/doc/adduser"]["kind"] == "removed"
    assert changes["/opt/app/conf/app.ini"]["diff"][2:] == [
        "@@ -0,0 +1,2 @@",
        "+[app]",
        "+port = 8080",
    ]
    assert changes["/opt/app/conf/app.ini"]["after"]["mode"] == "0640"
    assert changes["/boot/new"]["after"]["mode"] == "1777"

    assert read(debian, "/etc/app/app.ini") == b"[app]\nport = 8080\n"
    assert read(debian, "/etc/app/app.ini.orig") == b"[app]\nport = 80\ndebug = no\n"
    assert read(debian, "/boot/efi/startup.nsh") == b"echo off\n"
    assert b"Debian GNU/Linux" in read(debian, "/home/issue")
    listing = stock("virt-ls", "-lR", "--uids", "-a", debian, "/opt").decode().splitlines()
    seen = {line.split()[-1]: line.split()[:5] for line in listing if "/opt/app" in line}
    assert seen["/opt/app/conf"][:2] == ["d", "0750"]
    assert seen["/opt/app/conf/app.ini"] == ["-", "0640", "18", "8", "8"]
    assert len(seen) == 5
    subprocess.run(["qemu-img", "check", "-q", debian], check=True)
    assert state(debian)[2] == before[2]


def without_times(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Changes but for what differs from run to run."""
    kept = []
    for one in changes:
        sides = {side: one[side] and {**one[side], "mtime_ns": 0} for side in ("before", "after")}
        kept.append({**one, **sides, "diff": None})
    return kept


@pytest.mark.parametrize(
    ("step", "code", "why"),
    [
        ("rm /not/there", 6, "steps.txt, line 4: /not: no such file"),
        ("mkdir /srv/kept/x", 6, "steps.txt, line 4: "),
        ("edit /etc/app/plain.conf -e 'die \"no\"'", 6, "line 4: -e gave up at line 1: no"),
        ("write /x --from /", 2, "steps.txt, line 4: --from /: no such file"),
    ],
)
def test_a_step_that_fails_undoes_those_before(
    step: str, code: int, why: str, disk: Path, tmp_path: Path
) -> None:
    steps = tmp_path / "steps.txt"
    steps.write_text(f"rm -rf /etc/app/big\n\nwrite /etc/motd --content x\n{step}\nmkdir /after\n")
    before = state(disk)
    done = imgtools("apply", "--format", "raw", "-a", disk, steps)
    assert (done.code, done.stdout, why in done.stderr) == (code, b"", True), done.stderr
    assert state(disk) == before


def test_what_a_change_prints(disk: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    steps = b"write /etc/motd --content hi\nchmod 0600 /srv/kept\nrm /srv/replaced\n"
    steps += b"write '/srv/\x1b[31mred' --content x\ntouch /etc/hostname /srv\n"
    before = state(disk)
    done = imgtools("apply", "-n", "--diff", *raw, "-", stdin=steps)
    assert done.code == 0
    assert done.stderr == "imgtools: dry run: the image is as it was\n"
    assert "\x1b" not in done.text
    assert state(disk) == before
    assert done.lines == [
        "M /etc/hostname  (times)",
        *("A /etc/motd", "--- /dev/null", "+++ b/etc/motd", "@@ -0,0 +1 @@", "+hi"),
        *("A /srv/\\x1b[31mred", "--- /dev/null", "+++ b/srv/\\x1b[31mred", "@@ -0,0 +1 @@", "+x"),
        "M /srv/kept  (mode 0644 -> 0600)",
        *("D /srv/replaced", "--- a/srv/replaced", "+++ /dev/null", "@@ -1 +0,0 @@", "-old"),
    ]
    quiet = change("chmod", "-q", *raw, "0600", "/srv/kept")
    assert quiet.stdout == b""
    assert stat.S_IMODE(found(disk, "/srv/kept").mode) == 0o600


def test_json_says_what_was_done_and_what_differs(disk: Path) -> None:
    raw = ("--format", "raw", "-a", disk)
    odd = os.fsdecode(b"/srv/\xff\n")
    document = json.loads(change("write", "--json", *raw, odd, "--content", "x").stdout)
    assert (document["schema"], document["version"]) == ("imgtools/write", 1)
    assert (document["engine"], document["warnings"]) == ("appliance", [])
    result = document["result"]
    (done,), (one,) = result.pop("done"), result.pop("changes")
    assert result == {"committed": True, "dry_run": False}
    name = {"path": "/srv/\\xff\\x0a", "path_base64": "L3Nydi//Cg=="}
    assert done == {"verb": "written", **name, "detail": "2 bytes"}
    after = one.pop("after")
    assert time.time_ns() - after.pop("mtime_ns") < 600 * 10**9
    assert after == {"type": "-", "mode": "0644", "uid": 0, "gid": 0, "size": 2}
    assert one == {"kind": "added", "differences": [], "before": None, "diff": None, **name}
    none = json.loads(imgtools("rm", "-f", "--json", *raw, "/not/there").stdout)["result"]
    assert none == {"committed": False, "dry_run": False, "done": [], "changes": []}
    failed = imgtools("rm", "--json", *raw, "/not-there")
    assert (failed.code, failed.stdout) == (6, b"")
    assert json.loads(failed.stderr)["error"]["code"] == "guest.file-not-found"
