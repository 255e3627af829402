"""Steps of writing files by the descriptor of their folder, so that no link is ever followed."""

from __future__ import annotations

import os
import stat as _stat
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from imgtools.model.files import Stat

CHUNK = 1 << 20
HOLE = 1 << 16
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ZEROS = bytes(HOLE)


def entries(fd: int) -> list[str]:
    """The names in an open folder, sorted."""
    return sorted(os.listdir(fd))


def copy_sparse(source: BinaryIO, fd: int, progress: Callable[[int], None]) -> None:
    """Copy a stream into a new file; runs of zeros become holes."""
    position = 0
    while chunk := source.read(CHUNK):
        for start in range(0, len(chunk), HOLE):
            piece = chunk[start : start + HOLE]
            if piece != _ZEROS:
                _write(fd, piece, position + start)
        position += len(chunk)
        progress(len(chunk))
    os.ftruncate(fd, position)


def _write(fd: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def set_times(what: int | bytes, found: Stat, folder: int | None = None) -> None:
    """Set a file's times, by descriptor or by name in ``folder``."""
    times = (found.atime_ns, found.mtime_ns)
    # A time that this host's filesystem cannot hold is no reason to lose the file.
    with suppress(OverflowError, OSError):
        if isinstance(what, int):
            os.utime(what, ns=times)
        else:
            os.utime(what, ns=times, dir_fd=folder, follow_symlinks=False)


def rename_into(source: int, target: int, name: str, what: os.stat_result) -> None:
    """Move an entry; who is not root needs write permission on a folder that moves."""
    locked = _stat.S_ISDIR(what.st_mode) and not what.st_mode & _stat.S_IWUSR
    if locked:
        os.chmod(name, 0o700, dir_fd=source)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    if locked:
        fd = os.open(name, OPEN_FOLDER, dir_fd=target)
        try:
            os.fchmod(fd, _stat.S_IMODE(what.st_mode))
            os.utime(fd, ns=(what.st_atime_ns, what.st_mtime_ns))
        finally:
            os.close(fd)


def remove_folder(parent: int, name: str | bytes) -> None:
    """Remove a folder that we made, with everything in it, following nothing."""
    with suppress(OSError):
        os.chmod(name, 0o700, dir_fd=parent)
    try:
        fd = os.open(name, OPEN_FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        for entry in entries(fd):
            if _stat.S_ISDIR(os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mode):
                remove_folder(fd, entry)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
