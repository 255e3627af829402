"""Hold an image for a change, in qemu's own protocol of locks (see ``locks``).

While we work on an overlay we hold "nobody else may write or resize" (bytes 201 and 203): every
qemu that wants to write fails with ``Failed to get "write" lock``, while readers are welcome, since
the image does not change yet.  For the commit we add "I write and resize" (101, 103), which also
keeps out those that count on an unchanging image, such as a guest that uses it as backing file.
Our own byte, far from qemu's, is locked exclusively, so that of two imgtools exactly one wins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from imgtools.errors import ImageError, ImageNotFoundError, InUseError, ReadOnlyError
from imgtools.image.locks import (
    FLOCK,
    NO_LOCKS,
    PERMISSION_BASE,
    UNSHARED_BASE,
    LockState,
    state_of,
)

OUR_BYTE = 300
PATIENCE = 2.0
"""Seconds that we wait for others: qemu-img info holds its locks for an instant only."""

_F_OFD_SETLK = 37
_WRITE, _RESIZE = 1, 3  # indexes into locks.PERMISSIONS
_LOCK_ERRORS = (errno.EACCES, errno.EAGAIN)


class Hold:
    """The locks on one image; `release` (or the end of the process) gives them up."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def fileno(self) -> int:
        """The open file that carries the locks."""
        return self._fd

    def take_exclusive(self) -> None:
        """Before the image itself is written: nobody may count on it any more.

        Raises InUseError when somebody does; the locks are then as before.
        """
        for base in (PERMISSION_BASE + _WRITE, PERMISSION_BASE + _RESIZE):
            _lock(self._fd, base, fcntl.F_RDLCK)
        try:
            _wait_until_free(self.path, self._fd, ("write", "resize"))
        except InUseError:
            for base in (PERMISSION_BASE + _WRITE, PERMISSION_BASE + _RESIZE):
                _lock(self._fd, base, fcntl.F_UNLCK)
            raise

    def sync(self) -> None:
        """Bring what was written to the image to its storage.  Raises ImageError."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be written: {error.strerror}") from error

    def release(self) -> None:
        """Give the locks up.  Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def hold_for_change(path: Path) -> Hold:
    """Hold the image that is to be changed.

    Raises InUseError naming who uses it, ReadOnlyError, ImageNotFoundError.
    """
    fd = _open(path, os.O_RDWR)
    return _held(path, fd, exclusive=True)


def hold_unchanged(path: Path) -> Hold:
    """Hold a lower layer, which others may read and use as we do.  Raises InUseError."""
    return _held(path, _open(path, os.O_RDONLY), exclusive=False)


@contextlib.contextmanager
def holding(paths: list[tuple[Path, bool]]) -> Iterator[list[Hold]]:
    """Hold several files, (path, to be changed) each; all are released at the end."""
    with contextlib.ExitStack() as stack:
        holds = []
        for path, changing in paths:
            hold = hold_for_change(path) if changing else hold_unchanged(path)
            stack.callback(hold.release)
            holds.append(hold)
        yield holds


def _held(path: Path, fd: int, *, exclusive: bool) -> Hold:
    try:
        if exclusive:
            _take_turn(path, fd)
        for index in (_WRITE, _RESIZE):
            _lock(fd, UNSHARED_BASE + index, fcntl.F_RDLCK)
        # A change also needs the consent of those who rely on the image as it is.
        _wait_until_free(path, fd, ("write", "resize") if exclusive else ())
    except BaseException:
        os.close(fd)
        raise
    return Hold(path, fd)


def _take_turn(path: Path, fd: int) -> None:
    if not _lock(fd, OUR_BYTE, fcntl.F_WRLCK):
        raise InUseError(
            f"{path}: another imgtools is changing this image",
            hint=_who(state_of(fd)) or "wait until it is done",
        )


def _wait_until_free(path: Path, fd: int, wanted: tuple[str, ...]) -> None:
    """Until nobody writes the image, nor denies us the permissions ``wanted``."""
    deadline = time.monotonic() + PATIENCE
    while True:
        state = state_of(fd)
        if not state.writer and not set(wanted) & set(state.unshared):
            return
        if time.monotonic() > deadline:
            raise _in_use(path, state)
        time.sleep(0.05)


def _in_use(path: Path, state: LockState) -> InUseError:
    who = _who(state)
    if state.writer:
        what = "is being written by another process (a running guest?)"
        return InUseError(f"{path}: {what}{who and f': {who}'}", hint="shut the guest down first")
    what = "is in use by a process that counts on it not to change"
    hint = "a running guest may have it as its backing file; shut that down first"
    return InUseError(f"{path}: {what}{who and f': {who}'}", hint=hint)


def _who(state: LockState) -> str:
    return ", ".join(f"{holder.name} (process {holder.pid})" for holder in state.holders)


def _lock(fd: int, offset: int, kind: int) -> bool:
    """Set a lock on one byte; False when another's lock is in the way.

    On a file system without locks there is nothing to hold, for qemu either.
    """
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, struct.pack(FLOCK, kind, os.SEEK_SET, offset, 1, 0))
    except OSError as error:
        if error.errno in _LOCK_ERRORS:
            return False
        if error.errno not in NO_LOCKS:
            raise
    return True


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise ImageNotFoundError(f"{path}: no such image file", hint="check the name") from None
    except OSError as error:
        if flags == os.O_RDONLY:
            raise ImageError(f"{path}: cannot open: {error.strerror}") from None
        raise ReadOnlyError(
            f"{path}: cannot be opened for writing: {error.strerror}",
            hint="copy it to where you may write, or mend its permissions",
        ) from None
