"""Metadata of files, and the trees of a filesystem in which they lie."""

from __future__ import annotations

import stat as _stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

FileKind = Literal["r", "d", "l", "b", "c", "f", "s", "u"]
"""libguestfs's one-letter types: regular, directory, link, block, char, FIFO, socket, unknown."""

_KIND_OF_MODE: dict[int, FileKind] = {
    _stat.S_IFREG: "r",
    _stat.S_IFDIR: "d",
    _stat.S_IFLNK: "l",
    _stat.S_IFBLK: "b",
    _stat.S_IFCHR: "c",
    _stat.S_IFIFO: "f",
    _stat.S_IFSOCK: "s",
}


def kind_of_mode(mode: int) -> FileKind:
    """Return the one-letter type for a ``st_mode``."""
    return _KIND_OF_MODE.get(_stat.S_IFMT(mode), "u")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """lstat(2) of a guest file.  ``blocks`` counts 512-byte units; times are nanoseconds."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int = 0
    blksize: int = 4096
    blocks: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    @property
    def kind(self) -> FileKind:
        """The one-letter type."""
        return kind_of_mode(self.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirEntry:
    """A name in a directory (never ``.`` or ``..``); ``kind`` may be ``u`` if only stat tells."""

    name: bytes
    kind: FileKind
    ino: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatVFS:
    """statvfs(3) as the Linux kernel would answer for the mounted filesystem."""

    bsize: int
    frsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    namemax: int = 255


class FileTree(Protocol):
    """One filesystem, read-only, without following any symbolic link.

    Paths are absolute bytes inside the filesystem (``b"/"`` is its root), already free of
    ``.``, ``..``, doubled slashes and symbolic links in all but the last component; resolving
    those is `imgtools.guest.tree`'s work, written once for both engines.

    Every method raises `GuestFileNotFoundError`, `GuestNotADirectoryError` … from
    `imgtools.errors`; the direct engine raises `DirectError` when it cannot be certain.
    """

    def lstat(self, path: bytes) -> Stat:
        """Metadata of ``path`` itself."""

    def readlink(self, path: bytes) -> bytes:
        """The target of the symbolic link ``path``, as stored."""

    def scandir(self, path: bytes) -> list[DirEntry]:
        """The entries of a directory in no particular order, without ``.`` and ``..``."""

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        """lstat of several names of one directory at once; None where one vanished."""

    def open(self, path: bytes) -> BinaryIO:
        """A seekable read-only stream over a regular file."""

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of ``path`` itself, by full name (``b"security.selinux"``)."""

    def statvfs(self) -> StatVFS:
        """Space and inodes of the whole filesystem."""


class WritableTree(FileTree, Protocol):
    """A filesystem that can be changed.  Paths as in `FileTree`; no method follows the last link
    except where it says so, and every one raises GuestOperationError and its kin."""

    def create(self, path: bytes, pieces: Iterable[bytes]) -> int:
        """Make or refill a file (its inode, owner and mode stay); returns the bytes written."""

    def write_at(self, path: bytes, offset: int, pieces: Iterable[bytes]) -> int:
        """Write into an existing file; returns the bytes written."""

    def sync(self) -> None:
        """Write out what was written so far."""

    def truncate(self, path: bytes, size: int) -> None:
        """Cut or extend a file."""

    def clear_swap(self, path: bytes) -> None:
        """Write zeros over the content of a swap file, whose blocks stay."""

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory."""

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""

    def unlink(self, path: bytes) -> None:
        """Remove a name that is no directory."""

    def remove_all(self, path: bytes) -> None:
        """Remove a directory with everything below."""

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""

    def link(self, path: bytes, existing: bytes) -> None:
        """Make another name of a file."""

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename within the filesystem, replacing what is there."""

    def copy_tree(self, old: bytes, other: Any, new: bytes) -> None:
        """Copy recursively into another tree of the same engine."""

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits; follows a link."""

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group."""

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time."""

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""

    def unpack(self, path: bytes, archive: int) -> None:
        """Unpack the tar stream of a descriptor into a new, empty directory."""
