"""Steps that make, move and remove."""

from __future__ import annotations

import stat as _stat
import time
from dataclasses import dataclass

from imgtools.errors import (
    GuestIsADirectoryError,
)
from imgtools.guest.owners import new_mode
from imgtools.guest.steps.base import Always, Done, absent, set_mode, set_owner
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Remove a file, link or, with ``recursive``, a directory; ``force`` allows it to be absent."""

    path: bytes
    recursive: bool = False
    force: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if it is allowed to be absent, and is."""
        return self.force and absent(tree, self.path)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Remove it."""
        if self.idle(guest):
            return []
        found = guest.lstat(self.path)
        if _stat.S_ISDIR(found.mode) and not self.recursive:
            raise GuestIsADirectoryError(
                f"{show(self.path)}: is a directory in the guest", hint="-r removes directories"
            )
        guest.remove(self.path, recursive=self.recursive)
        return [Done(verb="removed", path=self.path)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mkdir:
    """Make a directory; ``parents`` makes those above as well, and one that is there is fine."""

    path: bytes
    parents: bool = False
    mode: str = "0755"
    owner: str | None = None

    def idle(self, tree: GuestTree) -> bool:
        """True if it may be there, and is."""
        return self.parents and tree.is_dir(self.path)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Make it, and those above."""
        if self.idle(guest):
            return []
        done = []
        mode = new_mode(self.mode, _stat.S_IFDIR)
        parts = [part for part in self.path.split(b"/") if part]
        paths = [b"/" + b"/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        for path in paths if self.parents else paths[-1:]:
            if self.parents and guest.is_dir(path):
                continue
            guest.mkdir(path, mode if path == paths[-1] else 0o755)
            done.append(Done(verb="made", path=path))
        if self.owner is not None:
            set_owner(guest, self.path, self.owner)
        return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Set the times of a file to now, or to ``when`` (ns); make it, empty, if it is not there."""

    path: bytes
    when_ns: int | None = None
    create: bool = True

    def idle(self, tree: GuestTree) -> bool:
        """True if it is not there, and is not to be made."""
        return not self.create and not tree.exists(self.path)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set both times."""
        if self.idle(guest):
            return []
        if not guest.exists(self.path):
            guest.create(self.path, [])
            set_mode(guest, self.path, "0644")
        when = time.time_ns() if self.when_ns is None else self.when_ns
        guest.set_times(self.path, when, when)
        return [Done(verb="changed", path=self.path, detail="times")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Make ``path`` a symbolic link with the text ``target``, or another name of that file.

    ``force`` replaces a file or link at ``path``.
    """

    target: bytes
    path: bytes
    symbolic: bool = True
    force: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if an equal symbolic link may be there, and is."""
        if not self.force or not self.symbolic or absent(tree, self.path):
            return False
        is_link = _stat.S_ISLNK(tree.lstat(self.path).mode)
        return is_link and tree.readlink(self.path) == self.target

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Make it."""
        if self.idle(guest):
            return []
        found = guest.try_lstat(self.path)
        if found is not None and self.force and not _stat.S_ISDIR(found.mode):
            guest.remove(self.path)
        if self.symbolic:
            guest.symlink(self.path, self.target)
        else:
            guest.link(self.path, self.target)
        return [Done(verb="made", path=self.path, detail=f"link to {show(self.target)}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Always):
    """Rename ``path`` to ``to``, or into it where that is a directory."""

    path: bytes
    to: bytes

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Move it."""
        target = self.to
        if guest.is_dir(target) or target.endswith(b"/"):
            target = target.rstrip(b"/") + b"/" + self.path.rstrip(b"/").rpartition(b"/")[2]
        guest.rename(self.path, target)
        return [Done(verb="moved", path=self.path, detail=f"to {show(target)}")]
