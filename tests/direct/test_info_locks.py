"""Who uses an image, asked while real qemu programs use it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from imgtools.image.locks import LockState, lock_state
from imgtools.image.qemu import info
from imgtools.model.disks import DiskRequest
from imgtools.workflow.opening import resolve_disks

pytestmark = pytest.mark.direct

GUEST = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    make(path, "16M")
    return path


def make(path: Path, *words: str) -> None:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), *words]
    subprocess.run(argv, check=True, cwd=path.parent)


@contextlib.contextmanager
def running(argv: Sequence[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block lasts, from when ``ready`` says so."""
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 30
        while not ready():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < end, f"{argv[0]} did not lock the image"
            time.sleep(0.05)
        yield child
    finally:
        child.kill()
        child.communicate()


def guest(disk: Path) -> list[str]:
    return [*GUEST, "-drive", f"file={disk},format=qcow2,if=virtio"]


def state_under(argv: Sequence[str], disk: Path) -> tuple[LockState, int]:
    with running(argv, lambda: lock_state(disk).held) as child:
        return lock_state(disk), child.pid


@pytest.mark.parametrize("program", ["guest", "qemu-io", "qemu-nbd"])
def test_writers(disk: Path, program: str) -> None:
    argv = {
        "guest": guest(disk),
        "qemu-io": ["qemu-io", "-f", "qcow2", str(disk)],
        "qemu-nbd": ["qemu-nbd", "-k", str(disk.parent / "s"), "-f", "qcow2", str(disk)],
    }[program]
    state, pid = state_under(argv, disk)
    assert state.writer
    assert {"write", "resize"} <= set(state.used)
    assert [holder.pid for holder in state.holders] == [pid]
    assert state.holders[0].name == Path(argv[0]).name[:15]
    assert not lock_state(disk).held


@pytest.mark.parametrize("program", ["qemu-io", "qemu-nbd"])
def test_readers_are_no_writers(disk: Path, program: str) -> None:
    argv = {
        "qemu-io": ["qemu-io", "-r", "-f", "qcow2", str(disk)],
        "qemu-nbd": ["qemu-nbd", "-r", "-k", str(disk.parent / "s"), "-f", "qcow2", str(disk)],
    }[program]
    state, pid = state_under(argv, disk)
    assert state.held
    assert not state.writer
    assert [holder.pid for holder in state.holders] == [pid]


def test_the_base_of_a_running_overlay_is_only_read(disk: Path) -> None:
    overlay = disk.with_name("overlay.qcow2")
    make(overlay, "-b", disk.name, "-F", "qcow2")
    with running(guest(overlay), lambda: lock_state(overlay).writer):
        assert not lock_state(disk).writer
        (opened,) = resolve_disks([DiskRequest(path=overlay)], untrusted=True)
        assert opened.in_use
        (base,) = resolve_disks([DiskRequest(path=disk)], untrusted=True)
        assert not base.in_use


def test_a_guest_that_starts_while_we_look_is_not_disturbed(disk: Path) -> None:
    """The image stays open here, and is asked about all the time, while qemu takes its locks."""
    with disk.open("rb"), running(guest(disk), lambda: lock_state(disk).writer) as child:
        for _ in range(20):
            lock_state(disk)
            resolve_disks([DiskRequest(path=disk)], untrusted=True)
        assert child.poll() is None


def test_qemu_img_info_on_a_running_guest(disk: Path) -> None:
    with running(guest(disk), lambda: lock_state(disk).writer) as child:
        assert info(disk, "qcow2").virtual_size == 16 << 20
        assert child.poll() is None
