"""A folder of a guest as a tar archive: a stream of bytes, the same from either engine."""

from __future__ import annotations

import fnmatch
import os
import re
import stat as _stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from imgtools.errors import (
    GuestNotADirectoryError,
    GuestOperationError,
    OutputError,
    RefusedError,
)
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree, show
from imgtools.workflow.compression import Compressed
from imgtools.workflow.copy_out import Copied
from imgtools.workflow.files import guest_tree
from imgtools.workflow.members import Member, members, too_deep
from imgtools.workflow.owners import GROUPS, USERS, names_by_id
from imgtools.workflow.progress import Progress
from imgtools.workflow.resumable import ResumableWriter
from imgtools.workflow.selection import DiskArguments, run_selected, select_one
from imgtools.workflow.tar_records import acl_text, header, padding
from imgtools.workflow.tar_sparse import (
    Run,
    data_runs,
    may_have_holes,
    sparse_map,
    sparse_records,
    stored_name,
)

CHUNK = 1 << 20
RECORD = 10240  # GNU tar's default: the archive's length is a multiple of it

SELINUX, ACL, DEFAULT_ACL = (
    b"security.selinux",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarOptions:
    """What goes into the archive, by the names of guestfish's tar-out.

    ``excludes`` are shell patterns, for a member's path or any of its components.
    """

    numeric_owner: bool = False
    xattrs: bool = False
    selinux: bool = False
    acls: bool = False
    sparse: bool = False
    excludes: tuple[bytes, ...] = ()
    compress: str | None = None


def tar_out(
    arguments: DiskArguments,
    folder: bytes,
    sink: BinaryIO,
    options: TarOptions,
    *,
    mounts: Sequence[MountRequest] = (),
    progress: Progress | None = None,
) -> Outcome[Copied]:
    """Write everything below ``folder`` of the guest to ``sink`` as a tar archive.

    Members are called ``./path``.  A file that cannot be read is left out and is a failure of
    the result; sockets are left out with a warning.
    """
    selection = select_one(arguments)
    target = Compressed(sink, options.compress) if options.compress else None
    writer = ResumableWriter(sink if target is None else cast("BinaryIO", target))
    archive = _Archive(writer, options, progress or Progress())

    def task(session: Session) -> Copied:
        archive.restart()
        archive.write(guest_tree(session, mounts), folder)
        archive.warn(session)
        return archive.copied

    outcome = run_selected(task, selection, arguments)
    writer.finish()
    try:
        if target is not None:
            target.close()
        sink.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write the output: {error.strerror or error}") from None
    return outcome


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete.

    Raises RefusedError for one that is there already, OutputError.
    """
    if not force and os.path.lexists(path):
        raise RefusedError(f"{path}: is there already", hint="--force replaces it")
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


class _Archive:
    """Writes members one after the other; a run may begin again."""

    def __init__(self, writer: ResumableWriter, options: TarOptions, progress: Progress) -> None:
        self._writer = writer
        self._options = options
        self._progress = progress
        self._exclude = [re.compile(fnmatch.translate(os.fsdecode(p))) for p in options.excludes]
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}
        self._lost: set[bytes] = set()  # hard links without their first name
        self._sockets = self._size = 0
        self.copied = Copied()

    def restart(self) -> None:
        self._writer.restart()
        self._progress.restart()
        self._lost.clear()
        self._sockets = self._size = 0
        self.copied = Copied()

    def write(self, tree: GuestTree, folder: bytes) -> None:
        """The whole archive of ``folder``, with its end."""
        if not _stat.S_ISDIR(tree.stat(folder).mode):
            raise GuestNotADirectoryError(f"{show(folder)}: is not a directory in the guest")
        if not self._options.numeric_owner:
            self._users = names_by_id(tree, USERS)
            self._groups = names_by_id(tree, GROUPS)
        hidden: bytes | None = None  # an excluded folder, with all below it
        for member in members(tree, folder, cut=self._cut):
            if hidden is not None and member.path.startswith(hidden + b"/"):
                continue
            if self._is_excluded(member.path):
                hidden = member.path
                continue
            self._progress.member(member.guest_path)
            linked = member.same_as is not None and not self._gone(member.same_as)
            self._member(tree, member, linked=linked)
        self._put(bytes(1024))
        self._put(bytes(-self._size % RECORD))

    def _cut(self, path: bytes) -> None:
        self.copied.fail(too_deep(path))

    def _gone(self, path: bytes) -> bool:
        """True if this earlier member is not in the archive."""
        parents = path.split(b"/")
        return path in self._lost or any(
            self._is_excluded(b"/".join(parents[:depth])) for depth in range(1, len(parents) + 1)
        )

    def _is_excluded(self, path: bytes) -> bool:
        if not path or not self._exclude:
            return False
        text = os.fsdecode(path)
        candidates = (text, f"./{text}", text.rpartition("/")[2])
        return any(one.match(candidate) for one in self._exclude for candidate in candidates)

    def _member(self, tree: GuestTree, member: Member, *, linked: bool) -> None:
        mode = member.stat.mode
        if _stat.S_ISSOCK(mode) or not _stat.S_IFMT(mode):
            self._sockets += 1
            return
        regular = _stat.S_ISREG(mode) and not linked
        try:
            more = self._attributes(tree, member) if not linked else {}
            runs = self._runs(tree, member) if regular else None
            stream = tree.open(member.guest_path) if regular else None
        except GuestOperationError as error:
            self.copied.fail(error)
            if member.stat.nlink > 1:
                self._lost.add(member.path)
            return
        name, found = _name(member), member.stat
        if runs is not None:
            more |= sparse_records(name, found.size)
            stored = len(sparse_map(runs)) + sum(length for _, length in runs)
            name, found = stored_name(name), replace(found, size=stored)
        head = header(
            name,
            found,
            target=b"./" + (member.same_as or b"") if linked else member.target,
            hard_link=linked,
            owner=(
                self._users.get(member.stat.uid, b""),
                self._groups.get(member.stat.gid, b""),
            ),
            more=more,
        )
        self._put(head)
        if stream is not None:
            with stream:
                self._content(stream, member, runs)
        self.copied.files += 1

    def _runs(self, tree: GuestTree, member: Member) -> list[Run] | None:
        """Where the data of a file with holes is; None for a file that is stored whole."""
        if not self._options.sparse or not may_have_holes(member.stat):
            return None
        with suppress(EOFError), tree.open(member.guest_path) as stream:
            runs = data_runs(stream, member.stat.size)
            return runs if runs != [(0, member.stat.size)] else None
        return None  # shorter than its size: _content says so

    def _content(self, stream: BinaryIO, member: Member, runs: list[Run] | None) -> None:
        whole = [(0, member.stat.size)]
        if runs is not None:
            self._put(sparse_map(runs))
        at = left = size = 0
        for offset, length in runs or whole:
            size += length
            readable = not left and self._skip(stream, offset - at)
            left += self._run(stream, length) if readable else length
            at = offset + length
        if left:  # zeros, as the header has promised that many bytes
            self.copied.fail(GuestOperationError(f"{show(member.guest_path)}: could not be read"))
        while left:
            count = min(CHUNK, left)
            self._put(bytes(count))
            left -= count
        self._put(padding(size))

    def _skip(self, stream: BinaryIO, count: int) -> bool:
        """Pass over a hole; False if it could not be read."""
        for chunk in self._chunks(stream, count):
            count -= len(chunk)
            self._progress.advance(len(chunk))
        return not count

    def _run(self, stream: BinaryIO, length: int) -> int:
        """Copy a run of data; the bytes that could not be read."""
        for chunk in self._chunks(stream, length):
            self._put(chunk)
            length -= len(chunk)
            self.copied.size += len(chunk)
            self._progress.advance(len(chunk))
        return length

    def _chunks(self, stream: BinaryIO, left: int) -> Iterator[bytes]:
        """The content, which ends where it cannot be read."""
        with suppress(GuestOperationError):
            while left and (chunk := stream.read(min(CHUNK, left))):
                yield chunk
                left -= len(chunk)

    def _attributes(self, tree: GuestTree, member: Member) -> dict[bytes, bytes]:
        """pax records of the attributes asked for, as GNU tar writes them."""
        options = self._options
        if not (options.xattrs or options.selinux or options.acls):
            return {}
        records = {}
        for name, value in sorted(tree.getxattrs(member.guest_path).items()):
            if name == SELINUX:
                if options.selinux:
                    # SELinux keeps the zero at the end, tar (src/xattrs.c) does not.
                    records[b"RHT.security.selinux"] = value.rstrip(b"\0")
            elif name in (ACL, DEFAULT_ACL):
                text = acl_text(value)
                if options.acls and text is not None:
                    records[b"SCHILY.acl.access" if name == ACL else b"SCHILY.acl.default"] = text
            elif options.xattrs and b"=" not in name:
                records[b"SCHILY.xattr." + name] = value
        return records

    def _put(self, data: bytes) -> None:
        self._writer.write(data)
        self._size += len(data)

    def warn(self, session: Session) -> None:
        """Say what was left out."""
        if self._sockets:
            plural = "s"[: self._sockets > 1]
            session.warn("tar.skipped", f"{self._sockets} socket{plural} not archived")


def _name(member: Member) -> bytes:
    slash = b"/" if _stat.S_ISDIR(member.stat.mode) else b""
    return b"./" + member.path + (slash if member.path else b"")
