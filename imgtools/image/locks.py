"""Does another process use this image?  Asked without taking a lock.

qemu marks what it does with an image file by read locks of open file descriptions on single
bytes: byte 100 + n says "I use permission n", byte 200 + n "nobody else may use permission n"
(block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE; the permissions are BLK_PERM_*).
F_OFD_GETLK asks whether a write lock on such a byte would be granted; asking leaves nothing
behind, so a guest that starts at the same moment is not disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from imgtools.image.source import open_source

PERMISSION_BASE = 100
UNSHARED_BASE = 200
PERMISSIONS = ("consistent-read", "write", "write-unchanged", "resize")
# What only a process does that may change the image under us.
_CHANGING = frozenset({"write", "write-unchanged", "resize"})

_F_OFD_GETLK = 36
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
FLOCK = "hhqqi4x"
NO_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""The errors of a file system that knows no such locks."""
MAX_PROCESSES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that has the image open for a lock; ``name`` is its command name."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """What others hold on an image.

    ``used`` are the permissions in use, ``unshared`` those that the holders deny everyone else
    (qemu's names).  ``holders`` may be empty although something is held: other users' processes
    show only to root, and those of other machines never.
    """

    used: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()
    holders: tuple[Holder, ...] = ()

    @property
    def held(self) -> bool:
        """True when any process holds qemu's locks."""
        return bool(self.used or self.unshared)

    @property
    def writer(self) -> bool:
        """True when a process may be changing the image."""
        return not _CHANGING.isdisjoint(self.used)


def lock_state(path: Path) -> LockState:
    """Ask who uses ``path``.  Raises what `open_source` raises.

    On a file system without locks the answer is that nobody does.
    """
    with open_source(path) as source:
        return state_of(source.fd)


def state_of(fd: int, *, holders: bool = True) -> LockState:
    """Ask who else uses the open file ``fd``; locks held through ``fd`` itself do not count.

    Without ``holders`` nobody is looked for in /proc, which takes long when many files are held.
    """
    used = _locked_bytes(fd, PERMISSION_BASE)
    unshared = _locked_bytes(fd, UNSHARED_BASE)
    if not used and not unshared:
        return LockState()
    found = _holders(os.fstat(fd)) if holders else ()
    return LockState(used=used, unshared=unshared, holders=found)


def _locked_bytes(fd: int, base: int) -> tuple[str, ...]:
    return tuple(
        name for index, name in enumerate(PERMISSIONS) if _would_conflict(fd, base + index)
    )


def _would_conflict(fd: int, offset: int) -> bool:
    request = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    try:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, request)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)


def _holders(status: os.stat_result) -> tuple[Holder, ...]:
    """Processes with this file open and a lock of an open file description on it."""
    others = (entry for entry in _processes() if int(entry.name) != os.getpid())
    found = [
        Holder(pid=int(entry.name), name=_command(entry))
        for entry in others
        if _locks(entry, status)
    ]
    return tuple(sorted(found, key=lambda holder: holder.pid))


def _processes() -> list[Path]:
    with contextlib.suppress(OSError):
        entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return list(islice(entries, MAX_PROCESSES))
    return []


def _locks(process: Path, status: os.stat_result) -> bool:
    """True when one of the process's descriptors of the file carries an OFD lock."""
    with contextlib.suppress(OSError):
        for name in os.listdir(process / "fd"):  # noqa: PTH208 (names only, many of them)
            with contextlib.suppress(OSError):
                other = os.stat(process / "fd" / name)  # noqa: PTH116
                if not os.path.samestat(other, status):
                    continue
                text = (process / "fdinfo" / name).read_text(encoding="ascii", errors="replace")
                if "OFDLCK" in text:
                    return True
    return False


def _command(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""
