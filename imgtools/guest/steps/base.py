"""What all steps share: what they answer, and small helpers."""

from __future__ import annotations

import stat as _stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestOperationError,
)
from imgtools.guest.owners import new_mode, parse_owner
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles
from imgtools.model.files import Stat

CHUNK = 1 << 20

Verb = Literal["written", "edited", "made", "removed", "changed", "moved", "copied", "ran", "noted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one step did to one path; ``detail`` is for people."""

    verb: Verb
    path: bytes
    detail: str = ""


class Step(Protocol):
    """One change."""

    def idle(self, tree: GuestTree) -> bool:
        """True if it is certain that `perform` would change nothing now."""

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do it.  Raises GuestOperationError and its kin."""


class Always:
    """A step of which only doing it tells."""

    __slots__ = ()

    def idle(self, tree: GuestTree) -> bool:
        """Never certain."""
        del tree
        return False


class Nothing:
    """A step that changes nothing, for what is only told."""

    __slots__ = ()

    def idle(self, tree: GuestTree) -> bool:
        """Always."""
        del tree
        return True

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do nothing."""
        del guest
        return []


def absent(tree: GuestTree, path: bytes) -> bool:
    try:
        tree.lstat(path)
    except GuestFileNotFoundError:
        return True
    except GuestOperationError:
        return False
    return False


def paths_of(
    tree: GuestTree, path: bytes, *, recursive: bool, links: bool
) -> Iterator[tuple[bytes, Stat]]:
    """What ``path`` leads to, and everything below with ``recursive``."""
    resolved = tree.resolve(path)
    yield resolved, tree.lstat(resolved)
    if recursive and tree.is_dir(resolved):
        for below, _, found in tree.walk(resolved):
            if links or not _stat.S_ISLNK(found.mode):
                yield below, found


def set_mode(guest: GuestFiles, path: bytes, mode: str) -> None:
    guest.chmod(path, new_mode(mode, guest.stat(path).mode))


def set_owner(guest: GuestFiles, path: bytes, owner: str) -> None:
    uid, gid = parse_owner(guest, owner)
    found = guest.stat(path)
    guest.chown(path, found.uid if uid is None else uid, found.gid if gid is None else gid)
