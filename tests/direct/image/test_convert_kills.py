"""A conversion that is killed or interrupted at any point leaves its source and target whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.appliance.kills import kill_all
from tests.cli import PROGRAM, imgtools
from tests.direct.image.disks import digest, leftovers, make_disk, qemu_img, same

pytestmark = pytest.mark.direct

KILLS = 15
"""Kills at points spread over the run; 50 or more for a night."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    disk = make_disk(folder)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, folder / "disk.qcow2")
    return folder / "disk.qcow2"


def _start(source: Path, target: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PROGRAM, "convert", *words, source, target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "IMGTOOLS_CONFIG": os.devnull},
        start_new_session=True,
    )


# Slowed down, so that the copy itself is the longest part of the run; a VMDK of two files.
WAYS = [
    ("qcow2", ["-O", "qcow2", "-r", "2M", "-W"], False),
    ("qcow2", ["-O", "qcow2", "-r", "2M", "--force"], True),
    ("vmdk", ["-O", "vmdk", "-o", "subformat=monolithicFlat", "-r", "2M"], False),
]


@pytest.mark.parametrize(("image_format", "words", "older"), WAYS)
def test_killed_at_any_point(
    image_format: str, words: list[str], older: bool, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"copy.{image_format}"
    before = digest(source)
    if older:
        qemu_img("create", "-q", "-f", "qcow2", target, "3M")
    old = digest(target) if older else None
    begin = time.monotonic()
    with _start(source, tmp_path / "timed", *words) as child:
        child.communicate()
    assert child.returncode == 0
    whole = time.monotonic() - begin
    count = -(-KILLS // len(WAYS))
    left_behind = replaced = 0
    for number in range(count):
        with _start(source, target, *words) as child:
            time.sleep(whole * (number + 0.5) / count)
            kill_all(child.pid)
        assert digest(source) == before
        left_behind += bool(leftovers(tmp_path))
        if target.exists() and digest(target) != old:
            replaced += 1
            assert same(source, "qcow2", target, image_format)
        elif older:
            assert target.exists()
    assert left_behind, "no kill was in the middle of the copy"
    # A kill between the two names of a VMDK leaves its extent: the next run says so.
    done = imgtools("convert", "--force", *words, source, target)
    assert done.code == 0, done.stderr
    assert same(source, "qcow2", target, image_format)
    assert not leftovers(tmp_path)
    assert digest(source) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(number: int, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.qcow2"
    with _start(source, target, "-O", "qcow2", "-r", "1M") as child:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".copy*/copy.qcow2")):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(0.1)
        child.send_signal(number)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == 128 + number
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert imgtools("convert", "-O", "qcow2", source, target).code == 0
