"""qemu's lock bytes, held here by descriptors of our own (see tests/direct for real qemu)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtools.image.locks import lock_state
from imgtools.model.disks import DiskRequest
from imgtools.workflow.opening import resolve_disks

pytestmark = pytest.mark.unit

F_OFD_SETLK = 37


@contextmanager
def held(path: Path, *offsets: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        for offset in offsets:
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, offset, 1, 0)
            fcntl.fcntl(descriptor, F_OFD_SETLK, lock)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(512))
    return path


def test_nobody(disk: Path) -> None:
    state = lock_state(disk)
    assert not state.held
    assert not state.writer


def test_a_writer(disk: Path) -> None:
    with held(disk, 100, 101, 103, 201, 203):
        state = lock_state(disk)
    assert state.used == ("consistent-read", "write", "resize")
    assert state.unshared == ("write", "resize")
    assert state.writer


def test_a_reader_is_no_writer(disk: Path) -> None:
    with held(disk, 100, 201, 203):
        state = lock_state(disk)
    assert state.held
    assert not state.writer


def test_asking_leaves_nothing_behind(disk: Path) -> None:
    lock_state(disk)
    with held(disk, 101):
        assert lock_state(disk).writer
    assert not lock_state(disk).held


def test_a_disk_in_use_says_so(disk: Path) -> None:
    requests = [DiskRequest(path=disk)]
    with held(disk, 101):
        assert resolve_disks(requests, untrusted=False)[0].in_use
    assert not resolve_disks(requests, untrusted=False)[0].in_use
