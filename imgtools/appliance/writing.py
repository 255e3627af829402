"""`ApplianceTree` that can also change the filesystem, each change one call of libguestfs.

Paths are as `model.FileTree` wants them: no symbolic link on the way, so none is followed to
another filesystem.  Where a call follows the last component (chmod, utimens, write) the caller has
resolved it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from imgtools.appliance import swap
from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import CallError, Library
from imgtools.appliance.translate import guest_error
from imgtools.appliance.tree import ApplianceTree
from imgtools.errors import GuestOperationError

_PIECE = 2 << 20  # bytes of content in one message, of which 4 MiB is the limit
_NANO = 10**9


class ApplianceWriter(ApplianceTree):
    """A filesystem mounted for writing.  Every method raises GuestOperationError and its kin.

    ``shown_at`` is where the guest has it, for messages.
    """

    def __init__(self, appliance: Appliance, mountpoint: bytes, shown_at: bytes = b"/") -> None:
        super().__init__(appliance, mountpoint)
        self._shown_at = shown_at.rstrip(b"/")

    def create(self, path: bytes, pieces: Iterable[bytes]) -> int:
        """Make a file of the content, or replace the content of the one there, keeping its inode.

        Returns the bytes written.  The file's owner, mode and labels stay.
        """
        self._do(path, lambda lib, inner: lib.status("write", inner, b"", _size(0)))
        return self.write_at(path, 0, pieces)

    def write_at(self, path: bytes, offset: int, pieces: Iterable[bytes]) -> int:
        """Write into an existing file from ``offset`` on; returns the bytes written."""
        begin = offset
        for piece in pieces:
            for start in range(0, len(piece), _PIECE):
                offset += self._pwrite(path, piece[start : start + _PIECE], offset)
        return offset - begin

    def _pwrite(self, path: bytes, data: bytes, offset: int) -> int:
        where = ctypes.c_int64(offset)
        while data:
            done = self._do(
                path,
                lambda lib, inner, data=data, where=where: lib.status(  # type: ignore[misc]
                    "pwrite", inner, data, _size(len(data)), where
                ),
            )
            data, where = data[done:], ctypes.c_int64(where.value + done)
        return where.value - offset

    def clear_swap(self, path: bytes) -> None:
        """Write zeros over the content of a swap file, whose blocks stay."""
        inside = os.fsdecode(_SYSROOT + self._inner(path))
        swap.clear(self._appliance, inside, os.fsdecode(self._shown_at + path))

    def sync(self) -> None:
        """Write out what was written so far."""
        self._do(b"/", lambda lib, _: lib.status("sync"))

    def truncate(self, path: bytes, size: int) -> None:
        """Cut a file to ``size`` bytes, or extend it by a hole."""
        self._do(path, lambda lib, inner: lib.status("truncate_size", inner, ctypes.c_int64(size)))

    def mkdir(self, path: bytes, mode: int) -> None:
        """Make a directory of exactly that mode."""
        self._do(path, lambda lib, inner: lib.status("mkdir_mode", inner, mode))
        self.chmod(path, mode)  # the appliance's umask was taken off

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._do(path, lambda lib, inner: lib.status("rmdir", inner))

    def unlink(self, path: bytes) -> None:
        """Remove a name that is no directory."""
        self._do(path, lambda lib, inner: lib.status("rm", inner))

    def remove_all(self, path: bytes) -> None:
        """Remove a directory and everything below, staying on this filesystem."""
        self._do(path, lambda lib, inner: lib.status("rm_rf", inner))

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link with this text."""
        self._do(path, lambda lib, inner: lib.status("ln_s", target, inner))

    def link(self, path: bytes, existing: bytes) -> None:
        """Make ``path`` another name of the file ``existing``."""
        old = self._inner(existing)
        self._do(path, lambda lib, inner: lib.status("ln", old, inner))

    def rename(self, old: bytes, new: bytes) -> None:
        """rename(2): ``new`` is replaced if it is there."""
        source = self._inner(old)
        self._do(new, lambda lib, inner: lib.status("rename", source, inner))

    def copy_tree(self, old: bytes, other: ApplianceWriter, new: bytes) -> None:
        """Copy recursively, with all attributes, to ``new``, which does not exist, in ``other``."""
        source = self._inner(old)
        target = other._inner(new)
        self._do(old, lambda lib, _: lib.status("cp_a", source, target))

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits (with setuid, setgid and sticky)."""
        self._do(path, lambda lib, inner: lib.status("chmod", mode, inner))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Set owner and group of ``path`` itself."""
        self._do(path, lambda lib, inner: lib.status("lchown", uid, gid, inner))

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time."""
        parts = [
            ctypes.c_int64(value)
            for when in (atime_ns, mtime_ns)
            for value in (when // _NANO, when % _NANO)
        ]
        self._do(path, lambda lib, inner: lib.status("utimens", inner, *parts))

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set one extended attribute of ``path`` itself.

        By setfattr: libguestfs's call takes the value as a string, which ends at the first NUL.
        """
        attribute, inside = os.fsdecode(name), os.fsdecode(_SYSROOT + self._inner(path))
        words = ["setfattr", "-h", "-n", attribute, "-v", f"0x{value.hex()}", "--", inside]
        complaint = self._appliance.shell(f"{shlex.join(words)} 2>&1; exit 0").strip()
        if complaint:
            why = complaint.rpartition(b": ")[2].decode(errors="replace")
            shown = path.decode("utf-8", errors="surrogateescape")
            raise GuestOperationError(f"{shown}: attribute {name.decode(errors='replace')}: {why}")

    def unpack(self, path: bytes, archive: int) -> None:
        """Unpack the tar stream of the descriptor ``archive`` into the directory ``path``.

        With extended attributes, ACLs and labels.  The directory must be new and empty: tar runs
        outside any root and would follow links that were there before.
        """
        inner = self._inner(path)
        try:
            self._appliance.unpack(archive, inner)
        except CallError as error:
            # libguestfs: "tar_in: ...: DIRECTORY: tar: why<LF>tar: Error is not recoverable<LF>..."
            why = error.message.partition(": tar: ")[2] or error.message
            line = why.replace("\\x0a", "\n").partition("\n")[0]
            raise GuestOperationError(f"the archive cannot be unpacked: {line}") from error

    def _do(self, path: bytes, act: Callable[[Library, bytes], int]) -> int:
        inner = self._inner(path)
        try:
            return self._appliance.call(lambda lib: act(lib, inner), what="a change")
        except CallError as error:
            path = self._shown_at + path
            if error.errno in _REASONS:
                shown = path.decode("utf-8", errors="surrogateescape")
                raise GuestOperationError(f"{shown}: {_REASONS[error.errno]}") from error
            raise guest_error(error, path) from error


_REASONS = {
    errno.ENOSPC: "no space left on the guest's filesystem",
    errno.EDQUOT: "the guest's quota is exceeded",
    errno.EROFS: "the guest's filesystem can only be read",
    errno.EEXIST: "exists already in the guest",
    errno.ENOTEMPTY: "is not empty in the guest",
    errno.EPERM: "may not be changed (immutable, or the filesystem does not know such files)",
    errno.EOPNOTSUPP: "the guest's filesystem does not support this",
    errno.EXDEV: "is on another filesystem of the guest",
    errno.EMLINK: "has too many links",
    errno.EFBIG: "larger than the guest's filesystem allows",
    errno.ETXTBSY: "is in use as a swap file",
}


_SYSROOT = b"/sysroot"  # where the appliance mounts what it is asked to (guestfs-internals(1))


def _size(count: int) -> Any:
    return ctypes.c_size_t(count)
