"""Single changes of a guest's files, as records: what `edit`, `write`, `rm` … and `apply` run.

A step says what it changed, and nothing when the guest was so already.  `Step.idle` may find that
out on a read-only tree before anything is launched; it is asked about the first state only, so
of several steps all must be idle.
"""

from __future__ import annotations

import hashlib
import stat as _stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestFileTooLargeError,
    GuestIsADirectoryError,
    GuestOperationError,
    ImgtoolsError,
)
from imgtools.guest.editing.lines import MAX_EDIT, check_text
from imgtools.guest.owners import new_mode, parse_owner
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles
from imgtools.model import Stat

CHUNK = 1 << 20

Verb = Literal["written", "edited", "made", "removed", "changed", "moved", "copied"]


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


class _Always:
    """A step of which only doing it tells."""

    __slots__ = ()

    def idle(self, tree: GuestTree) -> bool:
        """Never certain."""
        del tree
        return False


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
class Write(_Always):
    """Make a file, or replace its content; a link is followed.

    A new file gets ``mode`` (0644 by default) and ``owner`` (root); an existing one keeps its own
    where none is given.
    """

    path: bytes
    content: Content
    mode: str | None = None
    owner: str | None = None

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Write, and set mode and owner."""
        new = not guest.exists(self.path)
        written = guest.create(self.path, self.content.pieces())
        if new or self.mode is not None:
            _set_mode(guest, self.path, self.mode or "0644")
        if self.owner is not None:
            _set_owner(guest, self.path, self.owner)
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
class AppendLine(_Always):
    """Add a line to the end of a file, with the file's own line ending."""

    path: bytes
    line: str

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Add it, after a line break where the last line has none."""
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
class Remove:
    """Remove a file, link or, with ``recursive``, a directory; ``force`` allows it to be absent."""

    path: bytes
    recursive: bool = False
    force: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if it is allowed to be absent, and is."""
        return self.force and _absent(tree, self.path)

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
            _set_owner(guest, self.path, self.owner)
        return done


@dataclass(frozen=True, slots=True, kw_only=True)
class Chmod:
    """Set permission bits, octal or as ``u+x``; ``recursive`` leaves links alone."""

    path: bytes
    mode: str
    recursive: bool = False

    def idle(self, tree: GuestTree) -> bool:
        """True if every mode is so already."""
        return all(self._wanted(found) is None for _, found in self._paths(tree))

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set those that differ."""
        done = []
        for path, found in self._paths(guest):
            wanted = self._wanted(found)
            if wanted is not None:
                guest.chmod(path, wanted)
                done.append(Done(verb="changed", path=path, detail=f"mode {wanted:04o}"))
        return done

    def _wanted(self, found: Stat) -> int | None:
        wanted = new_mode(self.mode, found.mode)
        return None if wanted == _stat.S_IMODE(found.mode) else wanted

    def _paths(self, tree: GuestTree) -> Iterable[tuple[bytes, Stat]]:
        return _paths(tree, self.path, recursive=self.recursive, links=False)


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
        for path, found in _paths(tree, self.path, recursive=self.recursive, links=True):
            wanted = (found.uid if uid is None else uid, found.gid if gid is None else gid)
            if wanted != (found.uid, found.gid):
                yield path, found, wanted


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
            _set_mode(guest, self.path, "0644")
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
        if not self.force or not self.symbolic or _absent(tree, self.path):
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
class Move(_Always):
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
        for path, found in _paths(tree, self.path, recursive=self.recursive, links=False):
            if self.recursive and not _stat.S_ISREG(found.mode):
                continue
            if found.size != self.size or not _stat.S_ISREG(found.mode):
                yield path, found


# --- shared --------------------------------------------------------------------------------------


def _absent(tree: GuestTree, path: bytes) -> bool:
    try:
        tree.lstat(path)
    except GuestFileNotFoundError:
        return True
    except GuestOperationError:
        return False
    return False


def _paths(
    tree: GuestTree, path: bytes, *, recursive: bool, links: bool
) -> Iterator[tuple[bytes, Stat]]:
    """What ``path`` leads to, and everything below with ``recursive``."""
    resolved = tree.resolve(path)
    yield resolved, tree.lstat(resolved)
    if recursive and tree.is_dir(resolved):
        for below, _, found in tree.walk(resolved):
            if links or not _stat.S_ISLNK(found.mode):
                yield below, found


def _set_mode(guest: GuestFiles, path: bytes, mode: str) -> None:
    guest.chmod(path, new_mode(mode, guest.stat(path).mode))


def _set_owner(guest: GuestFiles, path: bytes, owner: str) -> None:
    uid, gid = parse_owner(guest, owner)
    found = guest.stat(path)
    guest.chown(path, found.uid if uid is None else uid, found.gid if gid is None else gid)
