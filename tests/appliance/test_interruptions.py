"""A change that is interrupted: by signals, by a kill in its commit, and what is made of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtools.errors import InUseError
from imgtools.image.chain import resolve_disk
from imgtools.image.hold import holding
from imgtools.model.disks import Disk, DiskRequest
from imgtools.transaction import recovery
from imgtools.transaction.transaction import Transaction
from tests.appliance.kills import Point, children_of, run_and_kill, wait_gone
from tests.appliance.small import (
    MIB,
    MOUNT,
    check_refused,
    content,
    content_of,
    digest,
    left_beside,
    small,
    write,
)
from tests.cli import PROGRAM, imgtools

pytestmark = pytest.mark.appliance

# --- interruptions -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["begin", "work", "commit"])
def test_a_signal_in_each_phase(phase: str, number: signal.Signals, tmp_path: Path) -> None:
    image = small(tmp_path, "qcow2")
    before = digest(image)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20 * MIB))
    words = [PROGRAM, "write", "-a", image, *MOUNT, "/big", "--from", big]
    record = image.with_name(f".{image.name}.imgtools")
    marks: dict[str, Callable[[], bool]] = {
        "begin": record.exists,
        "work": lambda: any(image.parent.glob(f".{image.name}.imgtools-*.qcow2")),
        "commit": lambda: record.exists() and b'"committing"' in _read(record),
    }
    environment = {**os.environ, "IMGTOOLS_CONFIG": os.devnull}
    with subprocess.Popen(
        ["env", "--default-signal=INT", *words],  # a background job may ignore it
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        while child.poll() is None and not marks[phase]():
            time.sleep(0.0005)
        started = children_of(child.pid)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + number, errors
    assert b"Traceback" not in errors
    assert left_beside(image) == []
    for pid in started:
        assert wait_gone(pid), pid
    if phase == "commit":
        assert content_of(image, "/big") == big.read_bytes()
        subprocess.run(["qemu-img", "check", "-q", image], check=True)
    else:
        assert digest(image) == before


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image whose commit was cut in two."""
    folder = tmp_path_factory.mktemp("interrupted")
    image = small(folder)
    big = folder / "big"
    big.write_bytes(os.urandom(8 * MIB))
    record = image.with_name(f".{image.name}.imgtools")
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        words: list[str | Path] = ["write", "-a", image, *MOUNT, "/big", "--from", big]
        run_and_kill(words, image, Point("commit", delay))
        if record.exists() and b'"committing"' in record.read_bytes():
            return folder
        imgtools("recover", image)
    raise AssertionError("no kill hit the commit")


@pytest.fixture
def cut(interrupted: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """(image, its record, its overlay) of an interrupted commit, a copy that is its own."""
    folder = tmp_path / "cut"
    shutil.copytree(interrupted, folder)
    image = folder / "disk.raw"
    record = folder / ".disk.raw.imgtools"
    (overlay,) = folder.glob(".disk.raw.imgtools-*.qcow2")
    value = json.loads(record.read_bytes())
    status = image.stat()
    (disk,) = value["disks"]
    disk |= {"image": str(image), "identity": [status.st_dev, status.st_ino],
             "overlay": str(overlay)}  # fmt: skip
    record.write_text(json.dumps(value))
    record.chmod(0o600)
    return image, record, overlay


Cut = tuple[Path, Path, Path]


def test_the_next_write_finishes_the_commit_first(cut: Cut) -> None:
    image, record, _ = cut
    listed = imgtools("recover", "--list", image.parent)
    assert (listed.code, "to be finished" in listed.text) == (0, True)
    assert record.exists()
    assert write(image).code == 0
    assert content(image) == b"new\n"
    assert content(image, "/big") == (image.parent / "big").read_bytes()
    assert left_beside(image) == []


def test_another_imgtools_finishes_the_commit_between_our_look_and_our_hold(
    cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the moment is forced; the other one is real."""
    image, record, overlay = cut

    def after_the_other(*arguments: Any) -> Any:
        assert imgtools("recover", image).code == 0
        return holding(*arguments)

    monkeypatch.setattr(recovery, "holding", after_the_other)
    with pytest.raises(InUseError, match="another imgtools dealt with"):
        recovery.recover(image, _resolved)
    assert not record.exists()
    assert not overlay.exists()
    assert content(image, "/big") == (image.parent / "big").read_bytes()


def _resolved(path: Path, kind: str) -> Disk:
    return resolve_disk(DiskRequest(path=path, format=kind), untrusted=False)


def test_a_commit_that_is_cut_while_we_wait_is_not_overwritten(cut: Cut) -> None:
    """An imgtools is killed after we looked for such, and before we hold the image."""
    image, record, overlay = cut
    request = DiskRequest(path=image, format="raw")
    transaction = Transaction([resolve_disk(request, untrusted=False)], command="test")
    before = record.read_bytes()
    with pytest.raises(InUseError, match="interrupted just now"), transaction:
        pass
    assert record.read_bytes() == before
    assert overlay.exists()
    assert imgtools("recover", image).code == 0
    assert content(image, "/big") == (image.parent / "big").read_bytes()


def test_a_vanished_overlay(cut: Cut) -> None:
    image, record, overlay = cut
    overlay.unlink()
    before = digest(image)
    check_refused(write(image), "vanished", str(record))
    check_refused(imgtools("ls", "-a", image, *MOUNT, "/"), "vanished")
    check_refused(imgtools("recover", image), "vanished")
    assert digest(image) == before


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 99}', "another version"),
        (b'{"version": 1, "state": "committing"}', "damaged"),
        (b"\xff\x00" * 100, "damaged"),
        (b"[" * 100_000, "damaged"),
    ],
)
def test_a_corrupted_record(damage: bytes, why: str, cut: Cut) -> None:
    image, record, overlay = cut
    record.write_bytes(damage)
    before = digest(image)
    check_refused(write(image), why, str(record))
    check_refused(imgtools("cat", "-a", image, *MOUNT, "/big"), why)
    check_refused(imgtools("recover", image.parent), why)
    assert digest(image) == before
    assert overlay.exists()


def test_a_record_of_an_image_that_is_gone(cut: Cut) -> None:
    image, record, _ = cut
    image.rename(image.with_name("elsewhere"))
    check_refused(imgtools("recover", image.parent), "is gone", str(record))


def test_a_record_of_a_replaced_image(cut: Cut) -> None:
    image, _, overlay = cut
    other = image.with_name("backup.raw")
    shutil.copyfile(image, other)
    other.rename(image)
    before = digest(image)
    check_refused(write(image), "replaced")
    check_refused(imgtools("recover", image), "replaced")
    assert digest(image) == before
    assert overlay.exists()


def test_a_forged_record_is_not_followed(cut: Cut, tmp_path: Path) -> None:
    """A record may not make us write to a file that has none itself, nor be another user's."""
    image, record, _ = cut
    victim = tmp_path / "victim.raw"
    shutil.copyfile(image, victim)
    before = digest(victim)
    original = record.read_bytes()
    value = json.loads(original)
    status = victim.stat()
    value["disks"].append({**value["disks"][0], "image": str(victim),
                           "identity": [status.st_dev, status.st_ino]})  # fmt: skip
    record.write_text(json.dumps(value))
    check_refused(imgtools("recover", image), "victim.raw")
    record.write_bytes(original)
    record.chmod(0o666)
    check_refused(imgtools("recover", image), "others may write it")
    record.chmod(0o600)
    os.chown(record, 12345, -1)
    check_refused(imgtools("recover", image), "user 12345")
    assert digest(victim) == before
