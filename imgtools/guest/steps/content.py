"""Steps that change what is in a file."""

from __future__ import annotations

import hashlib
import stat as _stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from imgtools.errors import (
    GuestFileTooLargeError,
    GuestIsADirectoryError,
    GuestOperationError,
    ImgtoolsError,
)
from imgtools.guest.editing.lines import MAX_EDIT, check_text
from imgtools.guest.steps.base import Always, Done, paths_of, set_mode, set_owner
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles
from imgtools.model.files import Stat

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Where new content comes from: bytes, a host file, or a stream that is read once."""

    data: bytes | None = None
    file: Path | None = None
    stream: BinaryIO | None = None

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces.  Raises ImgtoolsError if it cannot be read."""
        if self.data is not None:
            yield self.data
        elif self.file is not None:
            try:
                with self.file.open("rb") as stream:
                    yield from _pieces(stream)
            except OSError as error:
                raise ImgtoolsError(f"{self.file}: {error.strerror}") from error
        elif self.stream is not None:
            yield from _pieces(self.stream)


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(CHUNK):
        yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Make a file, or replace its content; a link is followed.

    A file that has this content already is not written again, where the content is in memory and
    neither mode nor owner is given.

    A new file gets ``mode`` (0644 by default) and ``owner`` (root); an existing one keeps its own
    where none is given.
    """

    path: bytes
    content: Content
    mode: str | None = None
    owner: str | None = None

    def idle(self, tree: GuestTree) -> bool:
        """True if the content is there already."""
        data = self.content.data
        if data is None or self.mode is not None or self.owner is not None:
            return False
        try:
            found = tree.stat(self.path)
            same_kind = _stat.S_ISREG(found.mode) and found.size == len(data)
            return same_kind and tree.read(self.path, limit=len(data)) == data
        except GuestOperationError:
            return False

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Write, and set mode and owner."""
        if self.idle(guest):
            return []
        new = not guest.exists(self.path)
        written = guest.create(self.path, self.content.pieces())
        if new or self.mode is not None:
            set_mode(guest, self.path, self.mode or "0644")
        if self.owner is not None:
            set_owner(guest, self.path, self.owner)
        return [Done(verb="written", path=self.path, detail=f"{written} bytes")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Pass a text file through ``transform``; ``backup`` is added to the name of a copy.

    ``transform`` gets the path and the content.  Its answer is kept, so that an editor that ran
    on the direct engine's view is not started again for the same content.
    """

    path: bytes
    transform: Callable[[bytes, bytes], bytes]
    backup: str = ""
    _known: dict[bytes, bytes] = field(default_factory=dict)

    def idle(self, tree: GuestTree) -> bool:
        """True if the content comes back as it was."""
        content = self._read(tree)
        return self._edited(content) == content

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Edit in place: owner, mode, links, attributes and labels stay."""
        content = self._read(guest)
        edited = self._edited(content)
        if edited == content:
            return []
        done = []
        if self.backup:
            copy = guest.resolve(self.path) + self.backup.encode(errors="surrogateescape")
            _copy_file(guest, self.path, copy, content)
            done.append(Done(verb="made", path=copy, detail="backup"))
        guest.create(self.path, [edited])
        return [*done, Done(verb="edited", path=self.path)]

    def _read(self, tree: GuestTree) -> bytes:
        try:
            content = tree.read(self.path, limit=MAX_EDIT)
        except GuestFileTooLargeError as error:
            raise GuestFileTooLargeError(
                f"{show(self.path)}: larger than {MAX_EDIT >> 20} MiB, too large to edit",
                hint="imgtools copy-out, change it, and imgtools write --from FILE",
            ) from error
        check_text(show(self.path), content)
        return content

    def _edited(self, content: bytes) -> bytes:
        key = hashlib.sha256(content).digest()  # the content itself may be large
        if key not in self._known:
            self._known[key] = self.transform(self.path, content)
        return self._known[key]


def _copy_file(guest: GuestFiles, path: bytes, copy: bytes, content: bytes) -> None:
    """A copy of a file with its owner, mode and attributes; an older copy is replaced."""
    found, attributes = guest.stat(path), guest.getxattrs(guest.resolve(path))
    older = guest.try_lstat(copy)
    if older is not None:
        if _stat.S_ISDIR(older.mode):
            raise GuestIsADirectoryError(f"{show(copy)}: is a directory in the guest")
        guest.remove(copy)
    guest.create(copy, [content])
    guest.chown(copy, found.uid, found.gid)
    guest.chmod(copy, _stat.S_IMODE(found.mode))
    for name, value in attributes.items():
        guest.set_xattr(copy, name, value)
    guest.set_times(copy, found.atime_ns, found.mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Pass a file of at most ``limit`` bytes, of any kind, through ``transform``."""

    path: bytes
    transform: Callable[[bytes], bytes]
    limit: int = MAX_EDIT

    def idle(self, tree: GuestTree) -> bool:
        """True if the content comes back as it was."""
        content = tree.read(self.path, limit=self.limit)
        return self.transform(content) == content

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Transform what is there by now: a step before this one may have changed it."""
        content = guest.read(self.path, limit=self.limit)
        changed = self.transform(content)
        if changed == content:
            return []
        guest.create(self.path, [changed])
        return [Done(verb="edited", path=self.path)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendLine(Always):
    """Add a line to the end of a file, with the file's own line ending.

    ``create`` makes the file where there is none.
    """

    path: bytes
    line: str
    create: bool = False

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Add it, after a line break where the last line has none."""
        if self.create and not guest.exists(self.path):
            guest.create(self.path, [])
            set_mode(guest, self.path, "0644")
        with guest.open(self.path) as stream:
            size = guest.stat(self.path).size
            head = stream.read(4096)
            stream.seek(max(0, size - 2))
            tail = stream.read(2)
        ending = b"\r\n" if tail == b"\r\n" or b"\r\n" in head else b"\n"
        glue = b"" if not tail or tail.endswith(b"\n") else ending
        text = self.line.encode(errors="surrogateescape")
        guest.append(self.path, glue + text + ending)
        return [Done(verb="edited", path=self.path, detail="a line appended")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """Cut a file to ``size`` bytes or extend it; ``recursive``: every regular file below."""

    path: bytes
    size: int = 0
    recursive: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if every file has that size."""
        return not any(True for _ in self._wanted(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set the sizes that differ."""
        done = []
        for path, found in list(self._wanted(guest)):
            guest.truncate(path, self.size)
            detail = f"{found.size} -> {self.size} bytes"
            done.append(Done(verb="changed", path=path, detail=detail))
        return done

    def _wanted(self, tree: GuestTree) -> Iterator[tuple[bytes, Stat]]:
        for path, found in paths_of(tree, self.path, recursive=self.recursive, links=False):
            if self.recursive and not _stat.S_ISREG(found.mode):
                continue
            if found.size != self.size or not _stat.S_ISREG(found.mode):
                yield path, found


# --- shared --------------------------------------------------------------------------------------
