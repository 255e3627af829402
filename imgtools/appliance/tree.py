"""`model.FileTree` over one filesystem mounted in the appliance, paths as bytes.

Each filesystem has a mountpoint of its own, so a symbolic link can never lead into another one, and
no call here follows the last component.  Limits are those of guestfs(3): a message of the protocol
holds 4 MiB, a path 4096 bytes (PATH_MAX in the appliance's kernel).
"""

from __future__ import annotations

import errno
import io
import stat as _stat
from functools import partial
from typing import Any, BinaryIO, NoReturn

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import (
    CallError,
    DirentList,
    Library,
    StatNS,
    StatNSList,
    StatVFSStruct,
    XAttrList,
    string_list,
)
from imgtools.appliance.translate import guest_error
from imgtools.errors import (
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
)
from imgtools.model.files import DirEntry, FileKind, Stat, StatVFS

PATH_MAX = 4096
READ_AHEAD = 1 << 20
_MAX_READ = 2 << 20  # the reply must fit into one message
_STAT_BATCH = 1000
_KINDS: dict[bytes, FileKind] = {
    b"r": "r",
    b"d": "d",
    b"l": "l",
    b"b": "b",
    b"c": "c",
    b"f": "f",
    b"s": "s",
}


class ApplianceTree:
    """The files of the filesystem mounted on ``mountpoint`` inside the appliance."""

    def __init__(self, appliance: Appliance, mountpoint: bytes) -> None:
        self._appliance = appliance
        self._mountpoint = mountpoint

    @property
    def mountpoint(self) -> bytes:
        """Where libguestfs has it mounted."""
        return self._mountpoint

    def lstat(self, path: bytes) -> Stat:
        """Metadata of ``path`` itself."""
        inner = self._inner(path)
        try:
            found: Stat = self._appliance.call(
                lambda lib: lib.record("lstatns", StatNS, _stat_of, inner)
            )
        except CallError as error:
            raise guest_error(error, path) from error
        return found

    def readlink(self, path: bytes) -> bytes:
        """The target of the symbolic link ``path``, as stored."""
        inner = self._inner(path)
        try:
            return self._appliance.call(lambda lib: lib.text("readlink", inner))
        except CallError as error:
            raise guest_error(error, path) from error

    def scandir(self, path: bytes) -> list[DirEntry]:
        """The entries of a directory in no particular order, without ``.`` and ``..``."""
        inner = self._inner(path)
        try:
            found: list[DirEntry] = self._appliance.call(
                lambda lib: lib.record("readdir", DirentList, _entries_of, inner)
            )
        except CallError as error:
            self._raise_for_directory(error, path)
        return found

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        """lstat of several names of one directory at once; None where one vanished."""
        inner = self._inner(directory)
        result: list[Stat | None] = []
        for start in range(0, len(names), _STAT_BATCH):
            batch = names[start : start + _STAT_BATCH]
            array = string_list(batch)
            try:
                result += self._appliance.call(partial(_lstat_list, inner=inner, names=array))
            except CallError as error:
                raise guest_error(error, directory) from error
        return result

    def open(self, path: bytes) -> BinaryIO:
        """A seekable read-only stream over a regular file."""
        found = self.lstat(path)
        if _stat.S_ISDIR(found.mode):
            raise GuestIsADirectoryError(f"{_show(path)}: is a directory in the guest")
        if not _stat.S_ISREG(found.mode):
            # Never opened: a FIFO would block the appliance, a device would be the appliance's.
            raise GuestNotAFileError(f"{_show(path)}: is not a regular file in the guest")
        raw = _Stream(self._appliance, self._inner(path), path, found.size)
        return io.BufferedReader(raw, buffer_size=READ_AHEAD)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of ``path`` itself; none where the filesystem knows none."""
        inner = self._inner(path)
        try:
            found: dict[bytes, bytes] = self._appliance.call(
                lambda lib: lib.record("lgetxattrs", XAttrList, _xattrs_of, inner)
            )
        except CallError as error:
            if error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
                return {}
            raise guest_error(error, path) from error
        return found

    def statvfs(self) -> StatVFS:
        """Space and inodes of the whole filesystem."""
        try:
            found: StatVFS = self._appliance.call(
                lambda lib: lib.record("statvfs", StatVFSStruct, _statvfs_of, self._mountpoint)
            )
        except CallError as error:
            raise guest_error(error, b"/") from error
        return found

    def _inner(self, path: bytes) -> bytes:
        if not path.startswith(b"/") or b"\0" in path:
            raise GuestOperationError(f"{_show(path)}: not an absolute path")
        if len(path) >= PATH_MAX - len(self._mountpoint):
            raise GuestFileNotFoundError(
                f"{_show(path[:80])}...: no such file or directory in the guest"
            )
        return self._mountpoint if path == b"/" else self._mountpoint + path

    def _raise_for_directory(self, error: CallError, path: bytes) -> NoReturn:
        # readdir gives no errno for some faults of 1.48: ask what is there.
        if error.errno == 0 and not _stat.S_ISDIR(self.lstat(path).mode):
            raise GuestNotADirectoryError(
                f"{_show(path)}: is not a directory in the guest"
            ) from error
        raise guest_error(error, path) from error


class _Stream(io.RawIOBase):
    """A regular file of the guest; each read is one call of at most 2 MiB."""

    def __init__(self, appliance: Appliance, inner: bytes, path: bytes, size: int) -> None:
        super().__init__()
        self._appliance = appliance
        self._inner = inner
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; a place beyond the end reads as empty."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        """The rest of the file, in large pieces (RawIOBase would ask for 8 KiB at a time)."""
        pieces = []
        while piece := self.read(_MAX_READ):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what one call gives."""
        import ctypes

        view = memoryview(buffer)
        count = min(len(view), _MAX_READ, max(0, self._size - self._position))
        if count == 0:
            return 0
        offset = ctypes.c_int64(self._position)
        try:
            data = self._appliance.call(
                lambda lib: lib.buffer("pread", self._inner, ctypes.c_int(count), offset)
            )
        except CallError as error:
            raise guest_error(error, self._path) from error
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _lstat_list(lib: Library, inner: bytes, names: Any) -> list[Stat | None]:
    found: list[Stat | None] = lib.record("lstatnslist", StatNSList, _stats_of, inner, names)
    return found


def _show(path: bytes) -> str:
    return path.decode("utf-8", errors="surrogateescape")


def _entry_of(found: Any) -> DirEntry:
    return DirEntry(name=found.name, kind=_KINDS.get(found.ftyp, "u"), ino=found.ino)


def _entries_of(found: Any) -> list[DirEntry]:
    entries = (_entry_of(found.val[index]) for index in range(found.len))
    return [entry for entry in entries if entry.name not in (b".", b"..")]


def _stat_of(found: Any) -> Stat:
    return Stat(
        ino=found.ino,
        mode=found.mode,
        nlink=found.nlink,
        uid=found.uid,
        gid=found.gid,
        size=found.size,
        rdev=found.rdev,
        blksize=found.blksize,
        blocks=found.blocks,
        atime_ns=found.atime_sec * 10**9 + found.atime_nsec,
        mtime_ns=found.mtime_sec * 10**9 + found.mtime_nsec,
        ctime_ns=found.ctime_sec * 10**9 + found.ctime_nsec,
    )


def _stats_of(found: Any) -> list[Stat | None]:
    # guestfs(3), lstatnslist: st_ino is -1 for a name that could not be read.
    items = [found.val[index] for index in range(found.len)]
    return [None if item.ino == -1 else _stat_of(item) for item in items]


def _xattrs_of(found: Any) -> dict[bytes, bytes]:
    import ctypes

    items = [found.val[index] for index in range(found.len)]
    return {
        item.name: ctypes.string_at(item.val, item.val_len) if item.val_len else b""
        for item in items
    }


def _statvfs_of(found: Any) -> StatVFS:
    names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax")
    return StatVFS(**{name: getattr(found, name) for name in names})
