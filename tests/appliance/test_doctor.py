"""doctor: every need on one line, each fault with its cure and the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.appliance

NAMES = [
    *("python", "direct engine", "qemu-img", "guestfs binding", "qemu-system", "supermin"),
    *("kernel", "temporary space", "cache space", "kvm", "instant", "hivex binding", "libvirt"),
]


def doctor(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = "from imgtools.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "doctor", *argv],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environ},
    )


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    document = json.loads(done.stdout)
    assert (document["schema"], document["version"]) == ("imgtools/doctor", 1)
    return {check["name"]: check for check in document["result"]}


def path_without(tmp_path: Path, *missing: str) -> str:
    """A PATH with everything but some programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in Path(place).glob("*"):
            link = folder / program.name
            if program.name not in missing and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def test_all_is_well_with_a_real_launch() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("ok   appliance        started in ") for line in lines)
    assert any(line.startswith("ok   instant          resumed in ") for line in lines)
    assert not any(line.startswith("FAIL") for line in lines)


def test_quick_leaves_out_only_the_launch() -> None:
    done = doctor("--quick", "--json")
    assert done.returncode == 0, done.stdout
    assert list(checks(done)) == NAMES


def test_every_line_that_is_not_ok_has_a_cure(tmp_path: Path) -> None:
    done = doctor(
        "--json",
        PATH=path_without(tmp_path, "supermin", "qemu-img"),
        SUPERMIN_KERNEL="/nonexistent",
        LIBGUESTFS_HV="/nonexistent/qemu",
    )
    assert done.returncode == 7
    found = checks(done)
    for name in ("supermin", "qemu-img", "kernel", "qemu-system", "appliance"):
        assert found[name]["status"] == "fail", name
        assert found[name]["cure"], name
    assert "apt-get install" in found["supermin"]["cure"]
    assert "unset SUPERMIN_KERNEL" in found["kernel"]["cure"]


def test_a_missing_tmpdir_is_exit_5() -> None:
    done = doctor("--json", "--quick", TMPDIR="/nonexistent")
    assert done.returncode == 5
    found = checks(done)
    assert found["temporary space"]["status"] == "fail"
    assert "TMPDIR" in found["temporary space"]["cure"]


def test_an_appliance_that_does_not_start_is_exit_5(tmp_path: Path) -> None:
    """A qemu that answers libguestfs's questions but refuses every machine."""
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(
        "#!/bin/sh\n"
        "case \"$*\" in *guestfsd*) echo 'qemu-system-x86_64: no luck' >&2; exit 1;; esac\n"
        'exec /usr/bin/qemu-system-x86_64 "$@"\n'
    )
    qemu.chmod(0o755)
    done = doctor("--json", LIBGUESTFS_HV=str(qemu))
    assert done.returncode == 5, done.stdout
    line = checks(done)["appliance"]
    assert line["status"] == "fail"
    assert "no luck" in line["fact"]
    assert "\n" not in line["fact"]
    assert line["cure"]


def test_no_space_is_exit_5(tmp_path: Path) -> None:
    """A file system without room: a small tmpfs, filled."""
    folder = tmp_path / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    try:
        done = doctor("--json", "--quick", TMPDIR=str(folder))
    finally:
        subprocess.run(["umount", folder], check=True)
    assert done.returncode == 5, done.stdout
    assert "MiB needed" in checks(done)["temporary space"]["fact"]
    assert "MiB needed" in checks(done)["cache space"]["fact"]


def test_without_libvirt_it_is_only_a_warning() -> None:
    done = doctor("--json", "--quick", "-c", "qemu+unix:///system?socket=/nonexistent")
    assert done.returncode == 0
    line = checks(done)["libvirt"]
    assert line["status"] == "warn"
    assert line["cure"]
