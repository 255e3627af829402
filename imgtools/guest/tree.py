"""One tree of files over several mounted filesystems, with symbolic links resolved in the guest.

A guest is hostile: a link may point anywhere, at itself, or be 64 KiB long.  Every component is
looked up here, one at a time, against the guest's own filesystems; nothing ever reaches the
host's. `..` stops at the guest's root, as in a chroot.
"""

from __future__ import annotations

import stat as _stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestFileTooLargeError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
    GuestSymlinkLoopError,
)
from imgtools.model.files import DirEntry, FileTree, Stat, StatVFS
from imgtools.model.storage import Storage

MAX_LINKS = 40  # Linux's own limit: MAXSYMLINKS in fs/namei.c
MAX_PATH = 1 << 16
MAX_DEPTH = 256


@dataclass(frozen=True, slots=True)
class Mount:
    """A filesystem of the guest and where it is mounted (``b"/"``, ``b"/boot"`` …).

    ``type`` is libblkid's name (``ext4``), empty where nobody asked.
    """

    mountpoint: bytes
    device: str
    tree: FileTree
    type: str = ""


def show(path: bytes) -> str:
    """A guest path for a message (made safe for a terminal by whoever prints it)."""
    return path.decode("utf-8", errors="surrogateescape")


class GuestTree:
    """The guest's files as the guest sees them.  Paths are absolute bytes.

    ``storage`` answers what is on the guest's disks, ``swap_is_clear`` whether a swap space among
    that has no content: nothing where whoever made the tree did not set it.
    """

    def __init__(self, mounts: list[Mount]) -> None:
        self.mounts = sorted(mounts, key=lambda mount: len(mount.mountpoint))
        if not self.mounts or self.mounts[0].mountpoint != b"/":
            raise ValueError("a guest tree needs a filesystem mounted on /")
        self._by_point = {mount.mountpoint: mount for mount in self.mounts}
        self.storage: Callable[[], Storage] = Storage
        self.swap_is_clear: Callable[[str], bool] = lambda _device: True

    # -- metadata ---------------------------------------------------------------------------

    def lstat(self, path: bytes) -> Stat:
        """Metadata of ``path`` itself; links in its parent folders are followed."""
        return self._lstat_resolved(self.resolve(path, follow_last=False))

    def stat(self, path: bytes) -> Stat:
        """Metadata of what ``path`` leads to."""
        return self._lstat_resolved(self.resolve(path))

    def readlink(self, path: bytes) -> bytes:
        """Target of the link ``path``, as stored."""
        tree, inner = self._locate(self.resolve(path, follow_last=False))
        return tree.readlink(inner)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of ``path`` itself."""
        tree, inner = self._locate(self.resolve(path, follow_last=False))
        return tree.getxattrs(inner)

    def statvfs(self, path: bytes = b"/") -> StatVFS:
        """Space of the filesystem that holds ``path``."""
        return self._locate(self.resolve(path))[0].statvfs()

    def device_of(self, path: bytes) -> str:
        """The mountable that holds ``path``."""
        return self._mount_of(self.resolve(path)).device

    def mount_of(self, path: bytes) -> Mount:
        """The mount that holds ``path``, which is resolved already (as `walk` gives it)."""
        return self._mount_of(path)

    def exists(self, path: bytes) -> bool:
        """True if ``path`` leads to something; a dangling or looped link does not."""
        return self._stat_or_none(path) is not None

    def is_file(self, path: bytes) -> bool:
        """True if ``path`` leads to a regular file."""
        found = self._stat_or_none(path)
        return found is not None and _stat.S_ISREG(found.mode)

    def is_dir(self, path: bytes) -> bool:
        """True if ``path`` leads to a directory."""
        found = self._stat_or_none(path)
        return found is not None and _stat.S_ISDIR(found.mode)

    def _stat_or_none(self, path: bytes) -> Stat | None:
        try:
            return self.stat(path)
        except GuestOperationError:
            return None

    # -- content ----------------------------------------------------------------------------

    def scandir(self, path: bytes) -> list[DirEntry]:
        """The entries of the directory ``path`` leads to, sorted by name."""
        tree, inner = self._locate(self.resolve(path))
        return sorted(tree.scandir(inner), key=lambda entry: entry.name)

    def listdir(self, path: bytes) -> list[bytes]:
        """The names in the directory ``path`` leads to, sorted; empty if there is none."""
        try:
            return [entry.name for entry in self.scandir(path)]
        except (GuestFileNotFoundError, GuestNotADirectoryError, GuestSymlinkLoopError):
            return []

    def scandir_stat(self, path: bytes) -> list[tuple[DirEntry, Stat]]:
        """The entries of a directory with their lstat, mountpoints showing what is mounted."""
        resolved = self.resolve(path)
        tree, inner = self._locate(resolved)
        entries = sorted(tree.scandir(inner), key=lambda entry: entry.name)
        stats = tree.lstat_many(inner, [entry.name for entry in entries])
        result = []
        for entry, found in zip(entries, stats, strict=True):
            covered = self._by_point.get(_join(resolved, entry.name))
            if covered is not None:
                found = self._tree_of(covered).lstat(b"/")  # noqa: PLW2901 (the mount hides what is below)
            if found is not None:
                result.append((entry, found))
        return result

    def open(self, path: bytes) -> BinaryIO:
        """A seekable read-only stream over the regular file that ``path`` leads to."""
        resolved = self.resolve(path)
        kind = self._lstat_resolved(resolved).mode
        if _stat.S_ISDIR(kind):
            raise GuestIsADirectoryError(f"{show(path)}: is a directory in the guest")
        if not _stat.S_ISREG(kind):
            raise GuestNotAFileError(f"{show(path)}: is not a regular file in the guest")
        tree, inner = self._locate(resolved)
        return tree.open(inner)

    def read(self, path: bytes, *, limit: int) -> bytes:
        """The whole content of a file of at most ``limit`` bytes.

        Raises GuestFileTooLargeError for a larger one, without reading it.
        """
        with self.open(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise GuestFileTooLargeError(f"{show(path)}: larger than {limit} bytes")
        return data

    def walk(
        self,
        top: bytes,
        *,
        cut: Callable[[bytes], None] | None = None,
        enter: Callable[[bytes], bool] | None = None,
    ) -> Iterator[tuple[bytes, DirEntry, Stat]]:
        """Everything below the directory ``top``, depth first, names sorted, links not followed.

        Yields (path, entry, lstat).  Directories already on the way down are not entered again
        (a damaged filesystem can hold a loop), nor anything deeper than `MAX_DEPTH`; ``cut`` is
        told of each one left out.  ``enter`` says which directories are gone into, else all.
        """
        yield from self._walk(self.resolve(top), frozenset(), 0, cut, enter)

    def _walk(
        self,
        directory: bytes,
        above: frozenset[tuple[str, int]],
        depth: int,
        cut: Callable[[bytes], None] | None,
        enter: Callable[[bytes], bool] | None,
    ) -> Iterator[tuple[bytes, DirEntry, Stat]]:
        identity = (self._mount_of(directory).device, self._lstat_resolved(directory).ino)
        if identity in above or depth > MAX_DEPTH:
            if cut is not None:
                cut(directory)
            return
        above |= {identity}
        for entry, found in self.scandir_stat(directory):
            path = _join(directory, entry.name)
            yield path, entry, found
            if _stat.S_ISDIR(found.mode) and (enter is None or enter(path)):
                yield from self._walk(path, above, depth + 1, cut, enter)

    # -- resolution -------------------------------------------------------------------------

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """``path`` with every link (but the last, on request) followed inside the guest.

        The last component need not exist.  Raises GuestSymlinkLoopError,
        GuestNotADirectoryError and, for a missing folder on the way, GuestFileNotFoundError.
        """
        if not path.startswith(b"/") or b"\0" in path or len(path) > MAX_PATH:
            raise GuestOperationError(
                f"{show(path[:200])}: not an absolute path",
                hint="paths in the guest start with /",
            )
        todo = list(reversed([part for part in path.split(b"/") if part and part != b"."]))
        if path.endswith((b"/", b"/.")):
            follow_last = True
        done: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                done = done[:-1]
                continue
            done.append(part)
            if not todo and not follow_last:
                break
            here = b"/" + b"/".join(done)
            target = self._link_target(here, last=not todo)
            if target is None:
                continue
            links += 1
            if links > MAX_LINKS or len(target) + sum(map(len, todo)) > MAX_PATH:
                raise GuestSymlinkLoopError(f"{show(path)}: too many symbolic links in the guest")
            done = [] if target.startswith(b"/") else done[:-1]
            todo += reversed([p for p in target.split(b"/") if p and p != b"."])
        return b"/" + b"/".join(done)

    def _link_target(self, here: bytes, *, last: bool) -> bytes | None:
        """The target if ``here`` is a link, None if it can be passed through."""
        if here in self._by_point:
            return None
        tree, inner = self._locate(here)
        try:
            mode = tree.lstat(inner).mode
        except GuestFileNotFoundError:
            if last:
                return None
            raise GuestFileNotFoundError(
                f"{show(here)}: no such file or directory in the guest"
            ) from None
        if _stat.S_ISLNK(mode):
            return tree.readlink(inner)
        if not last and not _stat.S_ISDIR(mode):
            raise GuestNotADirectoryError(f"{show(here)}: is not a directory in the guest")
        return None

    def _lstat_resolved(self, resolved: bytes) -> Stat:
        tree, inner = self._locate(resolved)
        try:
            return tree.lstat(inner)
        except GuestFileNotFoundError:
            raise GuestFileNotFoundError(
                f"{show(resolved)}: no such file or directory in the guest"
            ) from None

    def _mount_of(self, resolved: bytes) -> Mount:
        for mount in reversed(self.mounts):
            point = mount.mountpoint
            if point in (b"/", resolved) or resolved.startswith(point + b"/"):
                return mount
        raise AssertionError("a mount on / covers every path")

    def _locate(self, resolved: bytes) -> tuple[FileTree, bytes]:
        mount = self._mount_of(resolved)
        if mount.mountpoint == b"/":
            return self._tree_of(mount), resolved
        return self._tree_of(mount), resolved[len(mount.mountpoint) :] or b"/"

    def _tree_of(self, mount: Mount) -> FileTree:
        return mount.tree


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + name if directory.endswith(b"/") else directory + b"/" + name
