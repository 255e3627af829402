"""A folder of this host that a guest's files are written into, and nothing outside of it.

Everything is made in a private folder inside the chosen one, entry by entry through the
descriptor of its parent, which was opened without following a link.  Only when all is there it
is moved to its place; what fails on the way leaves nothing behind, and a second run (on the other
engine) begins with an empty folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat as _stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from imgtools.errors import OutputError, RefusedError
from imgtools.guest.tree import show
from imgtools.model.files import Stat
from imgtools.workflow.hostfs import (
    OPEN_FOLDER,
    OPEN_NEW,
    copy_sparse,
    entries,
    remove_folder,
    rename_into,
    set_times,
)

# When the disk itself fails there is no sense in going on with the next file.
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What of the guest's metadata is kept.

    Owners are kept only by root.  Without them the set-id bits go as well: a guest's program
    must not run as whoever copied it.  ``devices`` makes device nodes; ``capabilities`` keeps
    file capabilities and set-id bits.
    """

    owners: bool
    devices: bool
    capabilities: bool

    def mode(self, mode: int) -> int:
        """The permission bits that a copy gets."""
        keep_set_id = self.owners and self.capabilities
        return _stat.S_IMODE(mode) & (0o7777 if keep_set_id else 0o1777)


@dataclass(slots=True)
class _Folder:
    path: bytes
    fd: int
    finish: Callable[[int], None]


class Stage:
    """Where copies are made until `commit` puts them into the folder ``place``.

    Raises OutputError when ``place`` is no folder or cannot be written.
    """

    def __init__(self, place: Path, keep: Keep) -> None:
        self.keep = keep
        self.unset: dict[str, int] = {}  # owner, mode, attribute -> files that could not have it
        self._place = place
        self._name = b""
        self._open: list[_Folder] = []
        try:
            self._fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(
                f"{place}: {error.strerror}", hint="name an existing folder"
            ) from None

    def has(self, name: str | bytes) -> bool:
        """True if the folder already has something of this name."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def restart(self) -> None:
        """Begin with an empty stage."""
        self.clear()
        self.unset.clear()
        self._name = b".imgtools-" + secrets.token_hex(8).encode()
        try:
            os.mkdir(self._name, 0o700, dir_fd=self._fd)
            fd = os.open(self._name, OPEN_FOLDER, dir_fd=self._fd)
        except OSError as error:
            raise OutputError(f"{self._place}: cannot be written: {error.strerror}") from None
        self._open = [_Folder(b"", fd, lambda _fd: None)]

    def clear(self) -> None:
        """Remove the stage and everything in it.  Idempotent."""
        while self._open:
            os.close(self._open.pop().fd)
        if self._name:
            remove_folder(self._fd, self._name)
            self._name = b""

    def close(self) -> None:
        """Remove the stage and let go of the folder."""
        self.clear()
        os.close(self._fd)

    # -- making entries: ``path`` is below the stage, its folder has been made before ------------

    def folder(self, path: bytes, found: Stat, xattrs: Mapping[bytes, bytes]) -> None:
        """Make a folder; its metadata follow when everything in it is there."""
        parent, name = self._parent(path)
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, OPEN_FOLDER, dir_fd=parent)
        self._open.append(_Folder(path, fd, lambda fd: self._finish(fd, found, xattrs)))

    def file(
        self,
        path: bytes,
        found: Stat,
        xattrs: Mapping[bytes, bytes],
        source: BinaryIO,
        progress: Callable[[int], None],
    ) -> None:
        """Make a regular file of what ``source`` gives; long runs of zeros become holes."""
        parent, name = self._parent(path)
        fd = os.open(name, OPEN_NEW, 0o600, dir_fd=parent)
        try:
            copy_sparse(source, fd, progress)
            self._finish(fd, found, xattrs)
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)

    def hard_link(self, path: bytes, earlier: bytes) -> None:
        """Make another name of a file made before."""
        parent, name = self._parent(path)
        top = self._open[0].fd
        os.link(earlier, name, src_dir_fd=top, dst_dir_fd=parent, follow_symlinks=False)

    def symlink(self, path: bytes, found: Stat, target: bytes) -> None:
        """Make a symbolic link, as the guest has it."""
        parent, name = self._parent(path)
        os.symlink(target, name, dir_fd=parent)
        self._own(name, found, parent)
        set_times(name, found, parent)

    def special(self, path: bytes, found: Stat) -> None:
        """Make a FIFO or a device node."""
        parent, name = self._parent(path)
        os.mknod(name, _stat.S_IFMT(found.mode) | 0o600, found.rdev, dir_fd=parent)
        self._own(name, found, parent)
        os.chmod(name, self.keep.mode(found.mode), dir_fd=parent)  # ours, and no link
        set_times(name, found, parent)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """The open folder that ``path`` goes into; folders left behind are finished."""
        above, _, name = path.rpartition(b"/")
        while self._open[-1].path != above:
            self._leave()
        return self._open[-1].fd, name

    def _leave(self) -> None:
        folder = self._open.pop()
        try:
            folder.finish(folder.fd)
        finally:
            os.close(folder.fd)

    def _finish(self, fd: int, found: Stat, xattrs: Mapping[bytes, bytes]) -> None:
        self._own(fd, found)
        for name, value in xattrs.items():
            if name != b"security.capability" or self.keep.capabilities:
                self._try(show(name), partial(os.setxattr, fd, name, value))
        self._try("mode", partial(os.fchmod, fd, self.keep.mode(found.mode)))
        set_times(fd, found)

    def _own(self, what: int | bytes, found: Stat, folder: int | None = None) -> None:
        if not self.keep.owners:
            return
        if isinstance(what, int):
            self._try("owner", partial(os.fchown, what, found.uid, found.gid))
        else:
            change = partial(os.chown, what, found.uid, found.gid, dir_fd=folder)
            self._try("owner", partial(change, follow_symlinks=False))

    def _try(self, what: str, change: Callable[[], None]) -> None:
        """Do what not every filesystem can, and count where it could not be done."""
        try:
            change()
        except OSError as error:
            if error.errno in _HOPELESS:
                raise
            self.unset[what] = self.unset.get(what, 0) + 1

    # -- to the end ------------------------------------------------------------------------------

    def commit(self, *, force: bool) -> None:
        """Move everything to its place.

        Raises RefusedError for a name that is there already; with ``force`` folders are merged
        and files replaced, but no folder by a file nor the other way, and no link is followed.
        """
        while len(self._open) > 1:
            self._leave()
        top = self._open[0].fd
        names = entries(top)
        for name in names:
            if not force and self.has(name):  # before anything is moved
                raise exists(self._place, name)
        for name in names:
            self._move(top, self._fd, name, force=force)
        self.clear()

    def _move(self, source: int, target: int, name: str, *, force: bool) -> None:
        what = os.stat(name, dir_fd=source, follow_symlinks=False)
        try:
            there = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            rename_into(source, target, name, what)
            return
        folders = _stat.S_ISDIR(what.st_mode), _stat.S_ISDIR(there.st_mode)
        if not force or folders[0] != folders[1]:
            raise exists(self._place, name)
        if not folders[0]:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            return
        inner = os.open(name, OPEN_FOLDER, dir_fd=source)
        below = os.open(name, OPEN_FOLDER, dir_fd=target)
        try:
            for entry in entries(inner):
                self._move(inner, below, entry, force=force)
        finally:
            os.close(inner)
            os.close(below)


def exists(place: Path, name: str | bytes) -> RefusedError:
    """The refusal to write over ``name``."""
    return RefusedError(
        f"{place}: already has {os.fsdecode(name)}",
        hint="--force merges folders and replaces files",
    )


def is_hopeless(error: OSError) -> bool:
    """True when no further file could be written either."""
    return error.errno in _HOPELESS
