"""Steps that change modes and owners."""

from __future__ import annotations

import stat as _stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imgtools.guest.owners import new_mode, parse_owner
from imgtools.guest.steps.base import Done, paths_of
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles
from imgtools.model.files import Stat


@dataclass(frozen=True, slots=True, kw_only=True)
class Chmod:
    """Set permission bits, octal or as ``u+x``; ``recursive`` leaves links alone."""

    path: bytes
    mode: str
    recursive: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if every mode is so already."""
        return all(self._wanted(found) is None for _, found in self.paths_of(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set those that differ."""
        done = []
        for path, found in self.paths_of(guest):
            wanted = self._wanted(found)
            if wanted is not None:
                guest.chmod(path, wanted)
                done.append(Done(verb="changed", path=path, detail=f"mode {wanted:04o}"))
        return done

    def _wanted(self, found: Stat) -> int | None:
        wanted = new_mode(self.mode, found.mode)
        return None if wanted == _stat.S_IMODE(found.mode) else wanted

    def paths_of(self, tree: GuestTree) -> Iterable[tuple[bytes, Stat]]:
        return paths_of(tree, self.path, recursive=self.recursive, links=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chown:
    """Set owner and group, ``USER[:GROUP]`` by the guest's own names; links below are set, too."""

    path: bytes
    owner: str
    recursive: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if every owner is so already."""
        return not any(True for _ in self._wanted(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set those that differ, with the setuid bits that the kernel takes away."""
        done = []
        for path, found, (uid, gid) in list(self._wanted(guest)):
            guest.chown(path, uid, gid, follow=False)
            if not _stat.S_ISLNK(found.mode) and found.mode & 0o6000:
                guest.chmod(path, _stat.S_IMODE(found.mode))
            done.append(Done(verb="changed", path=path, detail=f"owner {uid}:{gid}"))
        return done

    def _wanted(self, tree: GuestTree) -> Iterator[tuple[bytes, Stat, tuple[int, int]]]:
        uid, gid = parse_owner(tree, self.owner)
        for path, found in paths_of(tree, self.path, recursive=self.recursive, links=True):
            wanted = (found.uid if uid is None else uid, found.gid if gid is None else gid)
            if wanted != (found.uid, found.gid):
                yield path, found, wanted
