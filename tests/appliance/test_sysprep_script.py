"""sysprep --script: programs of this host on the guest's files, in the one transaction."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import sysprep
from tests.appliance.scratch import change, copy_of
from tests.appliance.small import digest
from tests.cli import imgtools
from tests.sysprep_plans import state

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]
ONLY = ("--enable", "script", "--script")


@pytest.fixture
def disk(image: Image, tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return copy_of(image(sysprep.NAME), tmp_path / "disk" / image(sysprep.NAME).name)


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def mounted() -> list[str]:
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "/imgtools-guest-" in line]


def test_scripts_see_and_change_the_guest_after_the_other_operations(
    disk: Path, tmp_path: Path
) -> None:
    first = script(
        tmp_path,
        "first",
        "echo to-stdout; echo to-stderr >&2; ls etc/motd~ var/log/new.log; "
        'ln -s /etc/os-release etc/link && grep -q ID= etc/link && readlink etc/link; echo "$PWD"; '
        "cp /bin/true srv/program; srv/program; echo new > etc/new",
    )
    second = script(tmp_path, "second", f"cmp etc/new - < {tmp_path}/host && rm etc/hostname")
    (tmp_path / "host").write_text("new\n", encoding="utf-8")
    place = tmp_path / "place"
    place.mkdir()
    words = ("--operations", "script,backup-files,machine-id", "--scriptdir", place)
    words = (*words, "--script", first, "--script", os.path.relpath(second))
    change("write", "-a", disk, "/etc/motd~", "--content", "old")
    before = digest(disk)

    dry = imgtools("sysprep", "-n", "--json", "-a", disk, *words)
    assert (dry.code, dry.stderr, digest(disk)) == (0, "", before)
    real = imgtools("sysprep", "--json", "-a", disk, *words)
    assert real.code == 0, real.stderr
    said = real.stderr.splitlines()
    assert said[:2] == ["to-stdout", "to-stderr"]
    assert said[-3:-1] == ["os-release", str(place)]
    assert "motd~" in said[2]  # gone already
    assert "Permission denied" in said[-1]
    [listed, done] = [json.loads(one.text)["result"]["operations"] for one in (dry, real)]
    assert listed == done
    ran = [action for one in done if one["name"] == "script" for action in one["actions"]]
    assert [(one["verb"], one["path"]) for one in ran] == [
        ("ran", str(first)),
        ("ran", str(second)),
    ]
    assert list(place.iterdir()) == []
    assert imgtools("cat", "-a", disk, "/etc/new").text == "new\n"
    assert imgtools("ls", "-a", disk, "/etc/hostname").code == 6


def test_alone_it_changes_what_the_script_does_and_nothing_else(disk: Path, tmp_path: Path) -> None:
    program = script(tmp_path, "program", "rm -f etc/hostname; [ -e etc/new ] || echo > etc/new")
    words = ("sysprep", "--json", "-a", disk, *ONLY, program)
    before, sha = state(disk), digest(disk)
    dry = imgtools(*words, "-n")
    assert (dry.code, dry.stderr, digest(disk)) == (0, "", sha)
    real = change(*words)
    [listed, [done]] = [json.loads(one.text)["result"]["operations"] for one in (dry, real)]
    assert listed == [done]
    assert [(one["verb"], one["path"]) for one in done["actions"]] == [("ran", str(program))]
    after = state(disk)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {
        "/etc/hostname",
        "/etc/new",
    }
    # it runs again, and finds nothing to do
    change(*words)
    assert state(disk) == after


@pytest.mark.parametrize(
    ("text", "said"), [("exit 3", "exit status 3"), ("kill -9 $$", "killed by SIGKILL")]
)
def test_a_script_that_fails_leaves_the_image_as_it_was(
    text: str, said: str, disk: Path, tmp_path: Path
) -> None:
    before = digest(disk)
    good = script(tmp_path, "good", "echo x > etc/x")
    bad = script(tmp_path, "bad", f"test -s etc/x && {text}")
    done = imgtools("sysprep", "-a", disk, *ONLY, good, "--script", bad)
    assert (done.code, digest(disk)) == (6, before)
    assert f"operation script: {bad}: {said}; the image is as it was" in done.stderr
    assert [path.name for path in disk.parent.iterdir()] == [disk.name]
    assert mounted() == []


def test_an_interrupt_ends_the_script(disk: Path, tmp_path: Path) -> None:
    before, marks = digest(disk), tmp_path / "marks"
    slow = script(
        tmp_path,
        "slow",
        f"trap 'echo ended > {marks}; exit 1' TERM; echo x > etc/x; echo begun > {marks}; "
        "sleep 100 & wait",
    )
    words = [sys.executable, "-m", "imgtools", "sysprep", "-a", disk, *ONLY, slow]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as child:
        while not marks.exists() or not marks.read_text(encoding="utf-8"):
            assert child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert (child.returncode, said) == (130, b"\nimgtools: interrupted\n")
    assert marks.read_text(encoding="utf-8") == "ended\n"
    assert (digest(disk), mounted()) == (before, [])


def test_links_of_the_guest_lead_to_no_file_of_this_host(disk: Path, tmp_path: Path) -> None:
    change("ln", "-s", "-a", disk, "../../outside", "/etc/bad")
    before = digest(disk)
    one = script(tmp_path, "one", "echo never >&2")
    done = imgtools("sysprep", "-a", disk, *ONLY, one)
    assert (done.code, digest(disk)) == (8, before)
    assert "leads above its root" in done.stderr
    assert "/etc/bad -> ../../outside" in done.stderr
    assert "never" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--script", "no-such-program"), "no-such-program: no such program on PATH"),
        (("--script", "./no-such"), "./no-such: no such file"),
        (("--script", "/etc/passwd"), "/etc/passwd: is not executable"),
        (("--script", ""), "an empty name"),
        (("--scriptdir", "/tmp"), "--scriptdir: there is no --script"),
        (("--script", "true", "--scriptdir", "/etc"), "/etc: is not empty"),
        (("--script", "true", "--scriptdir", "/etc/no"), "/etc/no: no such file or directory"),
        (("--operations", "-script", "--script", "true"), "script is not selected"),
    ],
)
def test_a_bad_script_is_one_line(words: tuple[str, ...], said: str, disk: Path) -> None:
    done = imgtools("sysprep", "-n", "-a", disk, *words)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1), done
    assert said in done.stderr


def test_mount_options_reach_the_kernel(disk: Path) -> None:
    before = digest(disk)
    words = ("sysprep", "-a", disk, "--enable", "machine-id", "--mount-options")
    done = imgtools(*words, "/:no-such-option")
    assert (done.code, digest(disk)) == (6, before)
    assert "cannot be mounted" in done.stderr
    absent = imgtools(*words, "/srv:sync")
    assert (absent.code, digest(disk)) == (6, before)
    assert "nothing of the guest is mounted on /srv" in absent.stderr
