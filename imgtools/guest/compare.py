"""What differs between the files of two guests, or between a guest and its changed overlay.

Two walks in the same order are merged, so that neither tree is ever held in memory.  Between an
image and an overlay of it most files need not be opened: a kernel cannot change a file's content,
owner, mode or attributes without moving its ctime.
"""

from __future__ import annotations

import stat as _stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from imgtools.guest.text_diff import text_diff
from imgtools.guest.tree import GuestTree
from imgtools.model.files import DirEntry, Stat

__all__ = ["Change", "ChangeKind", "compare_trees", "text_diff"]

ChangeKind = Literal["added", "removed", "modified"]

CHUNK = 1 << 20
# Filesystems whose ctime is the kernel's own and moves with every change of an inode.
KEEPS_CTIME = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})
_SECOND = 10**9

_Step = tuple[bytes, DirEntry | None, Stat]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs.

    ``before`` is None when added, ``after`` when removed; ``differences`` says for a modified
    one in what: ``type``, ``content``, ``size``, ``target``, ``device``, ``mode``, ``owner``,
    ``xattrs``, ``links``, ``times``.
    """

    path: bytes
    kind: ChangeKind
    before: Stat | None = None
    after: Stat | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    content: bool
    xattrs: bool
    times: bool
    atime: bool
    dir_times: bool
    dir_links: bool
    same_filesystem: bool


def compare_trees(
    old: GuestTree,
    new: GuestTree,
    *,
    content: bool = True,
    xattrs: bool = True,
    times: bool = False,
    atime: bool = False,
    dir_times: bool = False,
    dir_links: bool = False,
    same_filesystem: bool = False,
    cut: Callable[[bytes], None] | None = None,
) -> Iterator[Change]:
    """Yield what differs, each folder before what is in it, names sorted as bytes.

    Without ``content`` files of one size are taken for equal.  ``same_filesystem`` says that
    ``new`` is an overlay of ``old``: what has kept its inode and ctime is then not read.
    Times count on request only: with ``times`` the modification time of a regular file, with
    ``dir_times`` that of a folder, with ``atime`` the last access to a file.  So does a folder's
    number of links (``dir_links``); its size never does, for any edit below may move it.
    ``cut`` is told of a folder that is too deep to be compared, as in `GuestTree.walk`.
    """
    options = _Options(
        content=content,
        xattrs=xattrs,
        times=times,
        atime=atime,
        dir_times=dir_times,
        dir_links=dir_links,
        same_filesystem=same_filesystem,
    )
    for before, after in _merge(_steps(old, cut), _steps(new, cut)):
        if before is None:
            assert after is not None
            yield Change(path=after[0], kind="added", after=after[2])
        elif after is None:
            yield Change(path=before[0], kind="removed", before=before[2])
        else:
            path = before[0]
            differences = _differences(old, new, path, before[2], after[2], options)
            if differences:
                yield Change(
                    path=path,
                    kind="modified",
                    before=before[2],
                    after=after[2],
                    differences=differences,
                )


def _steps(tree: GuestTree, cut: Callable[[bytes], None] | None) -> Iterator[_Step]:
    yield b"/", None, tree.lstat(b"/")
    yield from tree.walk(b"/", cut=cut)


def _merge(
    old: Iterator[_Step], new: Iterator[_Step]
) -> Iterator[tuple[_Step | None, _Step | None]]:
    before, after = next(old, None), next(new, None)
    while before is not None or after is not None:
        order = _order(before, after)
        yield (before if order <= 0 else None), (after if order >= 0 else None)
        if order <= 0:
            before = next(old, None)
        if order >= 0:
            after = next(new, None)


def _order(before: _Step | None, after: _Step | None) -> int:
    """Negative if ``before`` comes first in a walk, positive if ``after`` does."""
    if before is None or after is None:
        return 1 if before is None else -1
    if before[0] == after[0]:
        return 0
    # A walk sorts name by name: "a/x" comes before "a-b" though "-" < "/".
    return -1 if before[0].split(b"/") < after[0].split(b"/") else 1


def _differences(
    old: GuestTree, new: GuestTree, path: bytes, before: Stat, after: Stat, options: _Options
) -> tuple[str, ...]:
    if before.kind != after.kind:
        return ("type",)
    found = _in_metadata(before, after, options)
    if not (options.same_filesystem and _untouched(old, new, path, before, after)):
        found += _in_content(old, new, path, before, after, options)
        if options.xattrs and old.getxattrs(path) != new.getxattrs(path):
            found.append("xattrs")
    return tuple(found)


def _in_metadata(before: Stat, after: Stat, options: _Options) -> list[str]:
    folder = _stat.S_ISDIR(before.mode)
    timed = options.dir_times if folder else options.times and _stat.S_ISREG(before.mode)
    seen = options.atime and not folder
    device = _stat.S_ISBLK(before.mode) or _stat.S_ISCHR(before.mode)
    checks = {
        "device": device and before.rdev != after.rdev,
        "mode": before.mode != after.mode,
        "owner": (before.uid, before.gid) != (after.uid, after.gid),
        "links": (options.dir_links or not folder) and before.nlink != after.nlink,
        "times": (timed and before.mtime_ns != after.mtime_ns)
        or (seen and before.atime_ns != after.atime_ns),
    }
    return [word for word, differs in checks.items() if differs]


def _untouched(old: GuestTree, new: GuestTree, path: bytes, before: Stat, after: Stat) -> bool:
    """True if the kernel's own records say that nobody has changed this inode."""
    mount, other = old.mount_of(path), new.mount_of(path)
    if mount.type not in KEEPS_CTIME or (mount.device, mount.type) != (other.device, other.type):
        return False
    # ext2, ext3 and small inodes keep whole seconds: two changes within one look alike.
    return _record(before) == _record(after) and before.ctime_ns % _SECOND != 0


def _record(found: Stat) -> tuple[int, ...]:
    return (
        found.ino,
        found.mode,
        found.uid,
        found.gid,
        found.size,
        found.mtime_ns,
        found.ctime_ns,
        found.blocks,
    )


def _in_content(
    old: GuestTree, new: GuestTree, path: bytes, before: Stat, after: Stat, options: _Options
) -> list[str]:
    if _stat.S_ISLNK(before.mode):
        return ["target"] if old.readlink(path) != new.readlink(path) else []
    if not _stat.S_ISREG(before.mode):
        return []
    if before.size != after.size:
        return ["content", "size"]
    if options.content and before.size and not _same_content(old, new, path):
        return ["content"]
    return []


def _same_content(old: GuestTree, new: GuestTree, path: bytes) -> bool:
    with old.open(path) as one, new.open(path) as other:
        return _same_bytes(one, other)


def _same_bytes(one: BinaryIO, other: BinaryIO) -> bool:
    while True:
        left, right = one.read(CHUNK), other.read(CHUNK)
        if left != right:
            return False
        if not left:
            return True
