"""Steps for files that only customize knows."""

from __future__ import annotations

import os
import secrets
import stat as _stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
    GuestOperationError,
    UsageError,
)
from imgtools.guest.globbing import glob
from imgtools.guest.steps import Content, Done, Write
from imgtools.guest.steps.base import Always
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.unpacking import merge
from imgtools.guest.writing import GuestFiles

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove what a shell pattern matches, folders with all that is below.

    A name that is there word for word is meant, whatever signs it holds.
    """

    pattern: bytes

    def idle(self, tree: GuestTree) -> bool:
        """True if nothing matches."""
        return not any(True for _ in self._matches(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Remove them."""
        done = []
        for path in list(self._matches(guest)):
            guest.remove(path, recursive=True)
            done.append(Done(verb="removed", path=path))
        return done

    def _matches(self, tree: GuestTree) -> Iterator[bytes]:
        try:
            tree.lstat(self.pattern)
        except GuestOperationError:
            yield from glob(tree, self.pattern)
        else:
            yield self.pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Always):
    """Copy a file or folder with everything in it and all attributes, as ``cp -a``.

    Into ``to`` where that is a directory; files that are there are replaced, folders merged.
    """

    path: bytes
    to: bytes

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Copy beside, then merge."""
        source = guest.resolve(self.path, follow_last=False)
        target = self.to
        if guest.is_dir(target) or target.endswith(b"/"):
            target = target.rstrip(b"/") + b"/" + source.rpartition(b"/")[2]
        target = guest.resolve(target)
        folder, _, name = target.rpartition(b"/")
        folder = folder or b"/"
        if not guest.is_dir(folder):
            raise GuestNotADirectoryError(f"{show(folder)}: is not a directory in the guest")
        stage = folder.rstrip(b"/") + b"/.imgtools-" + secrets.token_hex(8).encode()
        guest.mkdir(stage, 0o700)
        guest.copy(source, stage + b"/" + name)
        done = list(merge(guest, stage, folder))
        guest.remove(stage, recursive=True)
        return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Always):
    """Copy a file of the host with its mode and the numbers of its owner, as virt-customize does.

    Into ``to`` where that is a directory.
    """

    file: Path
    to: bytes

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Write it, with mode and owner."""
        target = self.to
        if guest.is_dir(target):
            target = target.rstrip(b"/") + b"/" + os.fsencode(self.file.name)
        try:
            found = self.file.stat()
        except OSError as error:
            raise UsageError(f"{self.file}: {error.strerror}") from None
        step = Write(
            path=target,
            content=Content(file=self.file),
            mode=f"{_stat.S_IMODE(found.st_mode):04o}",
            owner=f"{found.st_uid}:{found.st_gid}",
        )
        done = step.perform(guest)
        # The kernel takes set-id bits away with the old owner.
        guest.chmod(target, _stat.S_IMODE(found.st_mode))
        return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub(Always):
    """Overwrite a regular file with random bytes, in place, and remove it.

    What is overwritten are the blocks that the file has now; a filesystem that never writes in
    place (btrfs), a journal of data, and snapshots keep the old ones.
    """

    path: bytes

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Overwrite, write out, remove."""
        found = guest.lstat(self.path)
        if _stat.S_ISDIR(found.mode):
            raise GuestIsADirectoryError(
                f"{show(self.path)}: is a directory in the guest", hint="only files are scrubbed"
            )
        if not _stat.S_ISREG(found.mode):
            raise GuestNotAFileError(f"{show(self.path)}: is not a regular file in the guest")
        guest.overwrite(self.path, _noise(found.size))
        guest.remove(self.path)
        return [Done(verb="removed", path=self.path, detail="scrubbed")]


def _noise(size: int) -> Iterator[bytes]:
    while size > 0:
        yield os.urandom(min(size, _PIECE))
        size -= _PIECE
