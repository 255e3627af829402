"""The guest's files, to be changed: paths as the guest sees them, links resolved in the guest.

`Planned` says what is mounted where; each filesystem is mounted for writing when it is first
touched, so that those a change has nothing to do with stay byte for byte as they are.
"""

from __future__ import annotations

import contextlib
import stat as _stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
)
from imgtools.guest.tree import GuestTree, Mount, show
from imgtools.model.engine import Ran
from imgtools.model.files import FileTree, Stat, WritableTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A filesystem of the guest and where it goes."""

    mountpoint: bytes
    device: str


def plan_of(tree: GuestTree) -> tuple[Planned, ...]:
    """What is mounted in a tree, to mount the same for writing."""
    return tuple(Planned(mountpoint=one.mountpoint, device=one.device) for one in tree.mounts)


class Devices(Protocol):
    """The guest's devices, to be changed while nothing on them is mounted."""

    def unmount(self) -> None:
        """Unmount everything."""

    def set_uuid(self, device: str, kind: str, uuid: str) -> None:
        """Give the ``kind`` (``ext4``, ``swap``, ``crypto_LUKS`` …) on it another UUID."""

    def clear_swap(self, device: str) -> None:
        """Write zeros over the content of the swap space on it."""

    def renew_lvm(self) -> dict[str, str]:
        """Give LVM's PVs and VGs random ids; old ids to new ones, without dashes."""

    def share(
        self, mounts: Sequence[tuple[bytes, str]], folder: Path
    ) -> contextlib.AbstractContextManager[None]:
        """Filesystems, by their paths in the guest, on a folder of this host, for the block."""


class Runner(Protocol):
    """What runs programs of the guest: an appliance on which its filesystems are mounted."""

    @property
    def network(self) -> bool:
        """Whether programs reach a network."""

    def run(
        self,
        mounts: Sequence[tuple[bytes, str]],
        words: Sequence[bytes],
        *,
        environment: Mapping[str, str],
        personality: str = "",
    ) -> Ran:
        """Run a program; ``mounts`` are paths in the guest and the mountables that go there."""

    def resolver(self) -> bytes:
        """The resolv.conf(5) by which names are found where the program runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """Who is told of programs: that one begins, and what it printed (``failed``: and so ended).

    ``tells`` is given lines for the user alone, which no record may hold: a random password.
    """

    begins: Callable[[str], None] = lambda _what: None
    said: Callable[[bytes, bool], None] = lambda _output, _failed: None
    tells: Callable[[str], None] | None = None


DEAF = Ears()


class GuestFiles(GuestTree):
    """A `GuestTree` whose files can be changed.

    Every method takes absolute guest paths, follows links in the folders on the way, and the last
    one only where it says so; each raises GuestOperationError and its kin.
    """

    def __init__(
        self,
        plan: Sequence[Planned],
        mount: Callable[[str, bytes], WritableTree],
        devices: Devices | None = None,
        runner: Runner | None = None,
        ears: Ears = DEAF,
    ) -> None:
        not_yet = cast("FileTree", None)
        super().__init__([Mount(one.mountpoint, one.device, not_yet) for one in plan])
        self._mount = mount
        self._mounted: dict[str, WritableTree] = {}
        self._touched: set[str] = set()
        self._devices = devices
        self._runner = runner
        self.ears = ears

    def unmounted(self) -> Devices:
        """The devices, after everything was unmounted; the next file mounts its filesystem again.

        Raises GuestOperationError where they cannot be changed.
        """
        if self._devices is None:
            raise GuestOperationError("the devices of this guest cannot be changed")
        if self._mounted:
            self._devices.unmount()
            self._mounted.clear()
        return self._devices

    @contextlib.contextmanager
    def shared(self, folder: Path) -> Iterator[None]:
        """All files of the guest below a folder of this host, to be changed, for the block.

        Nothing else may be done to the guest in the block.  Raises GuestOperationError,
        RefusedError if links of the guest would lead to files of this host.
        """
        mounts = [(one.mountpoint, one.device) for one in self.mounts]
        self._touched |= {device for _, device in mounts}
        with self.unmounted().share(mounts, folder):
            yield

    @property
    def touched(self) -> tuple[Planned, ...]:
        """The filesystems that were mounted."""
        mounts = (one for one in self.mounts if one.device in self._touched)
        return tuple(Planned(mountpoint=one.mountpoint, device=one.device) for one in mounts)

    def create(self, path: bytes, pieces: Iterable[bytes]) -> int:
        """Write a regular file, new or refilled in place; a link is followed.

        A file that was there keeps its owner, mode, ACLs and labels.  Returns the bytes written.
        """
        resolved = self.resolve(path)
        found = self.try_lstat(resolved)
        if found is None:
            tree, inner = self._new(resolved)
            return tree.create(inner, pieces)
        _require_file(resolved, found)
        tree, inner = self._writable(resolved)
        kept = tree.getxattrs(inner)
        written = tree.create(inner, pieces)
        # The kernel drops file capabilities (and IMA's hash, which is stale) on a write.
        name = b"security.capability"
        if name in kept and name not in tree.getxattrs(inner):
            tree.set_xattr(inner, name, kept[name])
        if _stat.S_IMODE(found.mode) != _stat.S_IMODE(tree.lstat(inner).mode):
            tree.chmod(inner, _stat.S_IMODE(found.mode))
        return written

    def append(self, path: bytes, data: bytes) -> None:
        """Add to the end of an existing regular file; a link is followed."""
        resolved = self.resolve(path)
        found = self._lstat_resolved(resolved)
        _require_file(resolved, found)
        tree, inner = self._writable(resolved)
        tree.write_at(inner, found.size, [data])

    def truncate(self, path: bytes, size: int) -> None:
        """Cut or extend an existing regular file; a link is followed."""
        resolved = self.resolve(path)
        _require_file(resolved, self._lstat_resolved(resolved))
        tree, inner = self._writable(resolved)
        tree.truncate(inner, size)

    def clear_swap(self, path: bytes) -> None:
        """Write zeros over the content of a swap file; a link is followed."""
        resolved = self.resolve(path)
        _require_file(resolved, self._lstat_resolved(resolved))
        tree, inner = self._writable(resolved)
        tree.clear_swap(inner)

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        """Make one directory."""
        tree, inner = self._new(self.resolve(path, follow_last=False))
        tree.mkdir(inner, mode)

    def remove(self, path: bytes, *, recursive: bool = False) -> None:
        """Remove a file or link, or with ``recursive`` a directory with everything below.

        A mountpoint is not removed, nor anything that holds one.
        """
        resolved = self.resolve(path, follow_last=False)
        found = self._lstat_resolved(resolved)
        prefix = resolved.rstrip(b"/") + b"/"
        for mount in self.mounts:
            if mount.mountpoint == resolved or mount.mountpoint.startswith(prefix):
                raise GuestOperationError(
                    f"{show(resolved)}: {mount.device} is mounted on {show(mount.mountpoint)}",
                    hint="remove what is in it instead",
                )
        tree, inner = self._writable(resolved)
        if not _stat.S_ISDIR(found.mode):
            tree.unlink(inner)
        elif recursive:
            tree.remove_all(inner)
        else:
            tree.rmdir(inner)

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        tree, inner = self._new(self.resolve(path, follow_last=False))
        tree.symlink(inner, target)

    def link(self, path: bytes, existing: bytes) -> None:
        """Make another name of an existing file; a link at ``existing`` is linked itself."""
        old = self.resolve(existing, follow_last=False)
        if _stat.S_ISDIR(self._lstat_resolved(old).mode):
            raise GuestIsADirectoryError(f"{show(old)}: is a directory in the guest")
        new = self.resolve(path, follow_last=False)
        tree, inner = self._new(new)
        self._same_filesystem(old, new)
        tree.link(inner, self._writable(old)[1])

    def rename(self, old: bytes, new: bytes) -> None:
        """Move a name, also to another filesystem of the guest; a file at ``new`` is replaced."""
        source = self.resolve(old, follow_last=False)
        target = self.resolve(new, follow_last=False)
        moved = self._lstat_resolved(source)
        if (target + b"/").startswith(source + b"/"):
            raise GuestOperationError(f"{show(target)}: lies below {show(source)}")
        self._refuse_mountpoint(source)
        self._replaceable(target, moved)
        from_tree, from_inner = self._writable(source)
        to_tree, to_inner = self._writable(target)
        if self._mount_of(source) is self._mount_of(target):
            from_tree.rename(from_inner, to_inner)
            return
        if self.try_lstat(target) is not None:
            self.remove(target)
        from_tree.copy_tree(from_inner, to_tree, to_inner)
        self.remove(source, recursive=True)

    def copy(self, old: bytes, new: bytes) -> None:
        """Copy recursively with all attributes to ``new``, which is not there; links are copied.

        What is mounted below ``old`` does not come along, hence that is refused.
        """
        source = self.resolve(old, follow_last=False)
        target = self.resolve(new, follow_last=False)
        self._lstat_resolved(source)
        if (target + b"/").startswith(source.rstrip(b"/") + b"/"):
            raise GuestOperationError(f"{show(target)}: lies below {show(source)}")
        prefix = source.rstrip(b"/") + b"/"
        for mount in self.mounts:
            if mount.mountpoint.startswith(prefix) and mount.mountpoint != b"/":
                raise GuestOperationError(
                    f"{show(source)}: {mount.device} is mounted on {show(mount.mountpoint)}",
                    hint="copy what is in it instead",
                )
        from_tree, from_inner = self._writable(source)
        to_tree, to_inner = self._new(target)
        from_tree.copy_tree(from_inner, to_tree, to_inner)

    def overwrite(self, path: bytes, pieces: Iterable[bytes]) -> None:
        """Write over the bytes of a regular file where they are, and wait until that is done."""
        resolved = self.resolve(path)
        _require_file(resolved, self._lstat_resolved(resolved))
        tree, inner = self._writable(resolved)
        tree.write_at(inner, 0, pieces)
        tree.sync()

    def run(
        self, words: Sequence[bytes], *, environment: Mapping[str, str], personality: str = ""
    ) -> Ran:
        """Run a program of the guest as it is; `imgtools.guest.customize.chroot` does it well.

        Every filesystem is mounted for it.
        """
        if self._runner is None:
            raise GuestOperationError("programs of the guest cannot be run here")
        for mount in self.mounts:
            self._tree_of(mount)
        mounts = [(mount.mountpoint, mount.device) for mount in self.mounts]
        return self._runner.run(mounts, words, environment=environment, personality=personality)

    @property
    def network(self) -> bool:
        """Whether programs of the guest reach a network."""
        return self._runner is not None and self._runner.network

    def resolver(self) -> bytes:
        """The resolv.conf(5) that programs of the guest need; empty without a network."""
        return self._runner.resolver() if self._runner is not None and self.network else b""

    def chmod(self, path: bytes, mode: int) -> None:
        """Set the permission bits; a link is followed."""
        tree, inner = self._writable(self._existing(path))
        tree.chmod(inner, mode)

    def chown(self, path: bytes, uid: int, gid: int, *, follow: bool = True) -> None:
        """Set owner and group."""
        tree, inner = self._writable(self._existing(path, follow=follow))
        tree.chown(inner, uid, gid)

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time; a link is followed."""
        tree, inner = self._writable(self._existing(path))
        tree.set_times(inner, atime_ns, mtime_ns)

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Set an extended attribute of ``path`` itself."""
        tree, inner = self._writable(self._existing(path, follow=False))
        tree.set_xattr(inner, name, value)

    def unpack(self, path: bytes, archive: int) -> None:
        """Unpack a tar stream into an existing, empty directory of ours."""
        tree, inner = self._writable(self._existing(path, follow=False))
        tree.unpack(inner, archive)

    def try_lstat(self, path: bytes) -> Stat | None:
        """lstat, None where there is nothing."""
        try:
            return self.lstat(path)
        except GuestFileNotFoundError:
            return None

    # -- rules ------------------------------------------------------------------------------------

    def _existing(self, path: bytes, *, follow: bool = True) -> bytes:
        resolved = self.resolve(path, follow_last=follow)
        self._lstat_resolved(resolved)
        return resolved

    def _new(self, resolved: bytes) -> tuple[WritableTree, bytes]:
        """The place of a name that is not there yet, in a directory that is."""
        if self.try_lstat(resolved) is not None:
            raise GuestOperationError(f"{show(resolved)}: exists already in the guest")
        parent = resolved.rpartition(b"/")[0] or b"/"
        if not _stat.S_ISDIR(self._lstat_resolved(parent).mode):
            raise GuestNotADirectoryError(f"{show(parent)}: is not a directory in the guest")
        return self._writable(resolved)

    def _replaceable(self, target: bytes, moved: Stat) -> None:
        there = self.try_lstat(target)
        if there is None:
            self._new(target)
        elif _stat.S_ISDIR(there.mode) and not _stat.S_ISDIR(moved.mode):
            raise GuestIsADirectoryError(f"{show(target)}: is a directory in the guest")
        elif _stat.S_ISDIR(moved.mode) and not _stat.S_ISDIR(there.mode):
            raise GuestNotADirectoryError(f"{show(target)}: is not a directory in the guest")

    def _same_filesystem(self, old: bytes, new: bytes) -> None:
        if self._mount_of(old) is not self._mount_of(new):
            raise GuestOperationError(
                f"{show(new)}: a hard link cannot lead to another filesystem ({show(old)})",
                hint="make a symbolic link (-s)",
            )

    def _refuse_mountpoint(self, resolved: bytes) -> None:
        if resolved in self._by_point:
            raise GuestOperationError(f"{show(resolved)}: is a mountpoint of the guest")

    def _writable(self, resolved: bytes) -> tuple[WritableTree, bytes]:
        tree, inner = self._locate(resolved)
        return cast("WritableTree", tree), inner

    def _tree_of(self, mount: Mount) -> WritableTree:
        if mount.device not in self._mounted:
            self._mounted[mount.device] = self._mount(mount.device, mount.mountpoint)
            self._touched.add(mount.device)
        return self._mounted[mount.device]


def _require_file(path: bytes, found: Stat) -> None:
    if _stat.S_ISDIR(found.mode):
        raise GuestIsADirectoryError(f"{show(path)}: is a directory in the guest")
    if not _stat.S_ISREG(found.mode):
        raise GuestNotAFileError(f"{show(path)}: is not a regular file in the guest")
