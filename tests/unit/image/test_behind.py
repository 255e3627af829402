"""Writing behind: a failure of the storage is heard, an exception is not held up."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from imgtools.image.behind import written_behind

pytestmark = pytest.mark.unit


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a file was synced, for real."""
    event, real = threading.Event(), os.fdatasync

    def sync(fd: int) -> None:
        real(fd)
        event.set()

    monkeypatch.setattr(os, "fdatasync", sync)
    return event


def test_it_is_synced_while_the_body_runs(tmp_path: Path, synced: threading.Event) -> None:
    path = tmp_path / "copy"
    with written_behind(path):
        path.write_bytes(b"x" * 4096)  # made only now, as qemu-img makes it
        assert synced.wait(30)


def test_a_body_that_is_over_at_once(tmp_path: Path) -> None:
    with written_behind(tmp_path / "copy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_the_storage_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(_fd: int) -> None:
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    path = tmp_path / "copy"
    path.write_bytes(b"x")
    with pytest.raises(OSError, match="Input/output error"), written_behind(path):
        assert failed.wait(30)


def test_an_exception_does_not_wait_for_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(_fd: int) -> None:
        begun.set()
        release.wait(30)

    monkeypatch.setattr(os, "fdatasync", hang)
    path = tmp_path / "copy"
    path.write_bytes(b"x")

    def interrupted() -> None:
        assert begun.wait(30)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), written_behind(path):
        interrupted()
    assert not release.is_set()
    release.set()


def test_a_link_is_not_followed(tmp_path: Path, synced: threading.Event) -> None:
    path = tmp_path / "copy"
    path.symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(OSError, match="symbolic links"), written_behind(path):
        assert not synced.wait(0.5)
