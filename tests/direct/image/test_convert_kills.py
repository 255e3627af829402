"""A conversion that is killed or interrupted at any point leaves its source and target whole."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.appliance.kills import children_of, wait_gone
from tests.cli import PROGRAM, imgtools
from tests.direct.image.chains import MIB, raw
from tests.direct.image.crashes import KILLS, crashing, here, spread
from tests.direct.image.disks import digest, leftovers, qemu_img, same

pytestmark = pytest.mark.direct


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    disk = raw(folder / "disk.img", 4 * MIB, (1, 0, MIB), (2, 2 * MIB, MIB // 2), (3, 3 * MIB, 512))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, folder / "disk.qcow2")
    return folder / "disk.qcow2"


def _files(folder: Path) -> dict[str, str]:
    """What is there, without what a killed run left half made."""
    return {path.name: digest(path) for path in folder.iterdir() if path.is_file()}


# The VMDK has two files: a descriptor and its extent.
SPLIT = ["-O", "vmdk", "-o", "subformat=monolithicFlat"]
WAYS = [
    ("qcow2", ["-O", "qcow2"], None),
    ("qcow2", ["-O", "qcow2", "-W", "--force"], ["qcow2"]),
    ("vmdk", SPLIT, None),
    ("vmdk", [*SPLIT, "--force"], SPLIT[1:]),
]
KILLS_OF_ONE = -(-KILLS // len(WAYS))


@pytest.mark.parametrize(("image_format", "words", "older"), WAYS)
def test_killed_at_any_point(
    image_format: str, words: list[str], older: list[str] | None, source: Path, tmp_path: Path
) -> None:
    """The old image, the new one, or (of several files) none: never a part of one."""
    before = digest(source)
    target = tmp_path / "copies" / f"copy.{image_format}"
    target.parent.mkdir()
    argv: list[str | Path] = ["convert", *words, source, target]

    def reset() -> dict[str, str]:
        for path in target.parent.iterdir():
            path.unlink()
        if older is not None:
            qemu_img("create", "-q", "-f", *older, target, MIB)
        return _files(target.parent)

    reset()
    outcomes: Counter[str] = Counter()
    with crashing(target.parent) as crasher:
        for point in spread(crasher.points(argv), KILLS_OF_ONE):
            old = reset()
            outcomes["killed"] += crasher.kill(argv, point)
            assert digest(source) == before
            outcomes["left behind"] += bool(leftovers(target.parent))
            if not target.exists():
                outcomes["none"] += 1
            elif older is not None and digest(target) == old[target.name]:
                assert _files(target.parent) == old
                outcomes["old"] += 1
            else:
                assert same(source, "qcow2", target, image_format)
                outcomes["new"] += 1
            # The next run neither needs --force for what a killed one left, nor takes it for whole.
            was = target.exists()
            assert here(*argv) == (8 if was and older is None else 0), point
            if was and older is None:  # it was refused; another one cleans up
                assert here(*argv, "--force") == 0
            assert not leftovers(target.parent)
            assert same(source, "qcow2", target, image_format)
    assert outcomes["killed"] >= KILLS_OF_ONE, outcomes
    assert outcomes["left behind"]
    assert outcomes["new"]
    assert outcomes["old" if older is not None else "none"]


def test_an_older_image_of_several_files_comes_back(source: Path, tmp_path: Path) -> None:
    """Killed between the old and the new one: the doctor finds it, too."""
    target = tmp_path / "copy.vmdk"
    argv: list[str | Path] = ["convert", *SPLIT, "--force", source, target]

    def reset() -> dict[str, str]:
        for path in tmp_path.iterdir():
            path.unlink()
        qemu_img("create", "-q", "-f", *SPLIT[1:], target, MIB)
        return _files(tmp_path)

    reset()
    seen = 0
    with crashing(tmp_path) as crasher:
        for point in crasher.points(argv)[-12:]:
            old = reset()
            crasher.kill(argv, point)
            between = not target.exists()
            seen += between
            # An extent without its descriptor may be one more finding of the same look.
            assert here("image", "chain", "--fix", tmp_path) in ((0, 10) if between else (0,))
            assert not leftovers(tmp_path)
            if between:
                assert _files(tmp_path) == old
            else:
                assert _files(tmp_path) == old or same(source, "qcow2", target, "vmdk")
    assert seen > 1


def _slow(source: Path, target: Path) -> subprocess.Popen[bytes]:
    """A conversion that has begun to write, and takes some seconds."""
    child = subprocess.Popen(
        [PROGRAM, "convert", "-O", "qcow2", "-r", "512K", source, target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "IMGTOOLS_CONFIG": os.devnull},
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not list(target.parent.glob(".copy*/copy.qcow2")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.01)
    return child


def test_killed_alone_its_qemu_img_keeps_the_target(source: Path, tmp_path: Path) -> None:
    """Nobody else writes the same files as long as that one does."""
    target = tmp_path / "copy.qcow2"
    with _slow(source, target) as child:
        (worker,) = children_of(child.pid)
        os.kill(worker, signal.SIGSTOP)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        done = imgtools("convert", "-O", "qcow2", source, target)
        os.kill(worker, signal.SIGCONT)
    assert done.code == 8
    assert "the qemu-img of one that was killed" in done.stderr
    assert wait_gone(worker)  # it has nobody to tell its progress to
    assert here("convert", "-O", "qcow2", source, target) == 0
    assert same(source, "qcow2", target, "qcow2")
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(number: int, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.qcow2"
    with _slow(source, target) as child:
        child.send_signal(number)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == 128 + number
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert imgtools("convert", "-O", "qcow2", source, target).code == 0
