"""A folder of a guest as a sequence of members, in the order in which an archive holds them."""

from __future__ import annotations

import stat as _stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imgtools.errors import GuestOperationError
from imgtools.guest.tree import GuestTree, show
from imgtools.model.files import Stat

MAX_HARD_LINKS = 100_000


def too_deep(path: bytes) -> GuestOperationError:
    """The failure to enter a folder below `MAX_DEPTH` others, or one that holds itself."""
    return GuestOperationError(f"{show(path)[-200:]}: is too deep, or holds itself; left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file, folder, link or device: ``path`` is below the top, empty for the top itself.

    ``guest_path`` is where it is in the guest, ``target`` that of a symbolic link, ``same_as``
    the path of an earlier member that is the same inode (a hard link).
    """

    path: bytes
    guest_path: bytes
    stat: Stat
    target: bytes | None = None
    same_as: bytes | None = None


def members(tree: GuestTree, top: bytes, *, cut: Callable[[bytes], None]) -> Iterator[Member]:
    """The file or folder that ``top`` leads to and everything below it, folders first.

    Links below are not followed; ``cut`` is told of folders too deep to be entered.  Of more
    than `MAX_HARD_LINKS` files with several names the later ones are members of their own.
    """
    resolved = tree.resolve(top)
    found = tree.lstat(resolved)
    yield Member(path=b"", guest_path=resolved, stat=found)
    if not _stat.S_ISDIR(found.mode):
        return
    start = len(resolved.rstrip(b"/")) + 1
    known: dict[tuple[str, int], bytes] = {}
    for path, entry, found in tree.walk(resolved, cut=cut):
        if entry.name in (b"", b".", b"..") or b"/" in entry.name or b"\0" in entry.name:
            raise GuestOperationError(f"{show(path)}: an impossible name in the guest")
        inner = path[start:]
        same_as = None
        if found.nlink > 1 and not _stat.S_ISDIR(found.mode):
            identity = (tree.mount_of(path).device, found.ino)
            same_as = known.get(identity)
            if same_as is None and len(known) < MAX_HARD_LINKS:
                known[identity] = inner
        yield Member(
            path=inner,
            guest_path=path,
            stat=found,
            target=tree.readlink(path) if _stat.S_ISLNK(found.mode) else None,
            same_as=same_as,
        )
