"""Disks with a GPT to resize, and what two other tools say of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from imgtools.cli.main import run as run_here
from tests.cli import Result, imgtools
from tests.direct.image.disks import run

MIB = 1 << 20
PARTITIONS = ((1 * MIB, 3 * MIB), (4 * MIB, 2 * MIB))  # start and size
SMALLEST = 6 * MIB + 33 * 512


def resize(*words: str | Path) -> Result:
    return imgtools("image", "resize", *words)


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 8) -> str:
    """The one line of a refusal; in this process, to be quick."""
    got = run_here(["image", "resize", *map(str, words)])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert got == code, shown.err
    assert shown.err.count("\n") == 1
    return shown.err


def make_gpt(path: Path, size: int = 16 * MIB) -> Path:
    """A raw disk with two partitions full of noise."""
    with path.open("wb") as stream:
        stream.truncate(size)
    words = [f"-n{i}:{a // 512}:{(a + n) // 512 - 1}" for i, (a, n) in enumerate(PARTITIONS, 1)]
    run("sgdisk", "-a", "8", *words, path)
    with path.open("r+b") as stream:
        for start, count in PARTITIONS:
            stream.seek(start)
            stream.write(os.urandom(count))
    return path


def as_qcow2(path: Path, *options: str) -> Path:
    target = path.with_suffix(".qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, path, target)
    return target


def content(path: Path) -> list[str]:
    """Digests of the partitions of a raw disk."""
    with path.open("rb") as stream:
        digests = []
        for start, count in PARTITIONS:
            stream.seek(start)
            digests.append(hashlib.sha256(stream.read(count)).hexdigest())
    return digests


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_gpt(path: Path) -> None:
    """Two tools find nothing to complain of: not even a backup that is not at the end."""
    assert "No problems found" in run("sgdisk", "-v", path)
    done = subprocess.run(["sfdisk", "--verify", path], capture_output=True, text=True, check=True)
    assert "No errors detected" in done.stdout
    assert "backup" not in done.stderr


def flat(path: Path) -> Path:
    """A raw copy of a qcow2, as the guest sees it."""
    target = path.with_suffix(".flat")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, target)
    return target
