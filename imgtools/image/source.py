"""Open the one named file, and read bounded pieces of it.

The file is opened without blocking on a FIFO and without following what it contains; only a
regular file or a block device is read from.  No lock is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from imgtools.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTruncatedError,
    ImageUnreadableError,
)

MAX_READ = 64 << 20

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFSOCK: "a socket",
}


class Source:
    """An open image file: bounded positioned reads, never a seek, never a write."""

    def __init__(self, fd: int, path: Path, size: int, status: os.stat_result) -> None:
        self.fd = fd
        self.path = path
        self.size = size
        self.is_block_device = stat.S_ISBLK(status.st_mode)
        # Two nodes of one block device are the same device.
        self.identity = (
            (0, status.st_rdev) if self.is_block_device else (status.st_dev, status.st_ino)
        )

    def peek(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer at the end of the file, none beyond it."""
        if offset < 0 or offset >= self.size or length <= 0:
            return b""
        if length > MAX_READ:
            raise ImageError(f"{self.path}: a table of {length} bytes is beyond any sane size")
        length = min(length, self.size - offset)
        parts = []
        try:
            while length > 0:
                part = os.pread(self.fd, length, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise ImageUnreadableError(
                f"{self.path}: cannot read at byte {offset}: {error.strerror}",
                hint="the storage may be failing; see dmesg",
            ) from None
        return b"".join(parts)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Exactly ``length`` bytes; raises ImageTruncatedError naming ``what`` otherwise."""
        data = self.peek(offset, length)
        if len(data) != length:
            raise ImageTruncatedError(
                f"{self.path}: truncated: the file has {self.size} bytes and ends before "
                f"{what} (byte {offset})",
                hint="copy or download the image again",
            )
        return data


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open ``path`` for reading.

    Raises ImageNotFoundError, ImageUnreadableError (no permission, a directory, a FIFO, a
    device of characters) and ImageTruncatedError (zero length).
    """
    fd = _open(path)
    try:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFBLK):
            raise ImageUnreadableError(
                f"{path}: {_KINDS.get(kind, 'a special file')}, not a disk image",
                hint="name a regular file or a block device",
            )
        size = status.st_size if kind == stat.S_IFREG else os.lseek(fd, 0, os.SEEK_END)
        if size == 0:
            raise ImageTruncatedError(
                f"{path}: the file is empty (0 bytes)", hint="copy or download the image again"
            )
        yield Source(fd, path, size, status)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        # A socket cannot be opened at all (ENXIO); a FIFO without a writer opens at once.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageNotFoundError(f"{path}: no such image file", hint="check the name") from None
    except PermissionError:
        raise ImageUnreadableError(
            f"{path}: permission denied", hint="run as a user who may read it (root, or group)"
        ) from None
    except ValueError:
        raise ImageNotFoundError(f"{path!s}: not a valid file name") from None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):
            raise ImageUnreadableError(
                f"{path}: a socket or a device without a driver, not a disk image"
            ) from None
        raise ImageUnreadableError(f"{path}: cannot open: {error.strerror}") from None
