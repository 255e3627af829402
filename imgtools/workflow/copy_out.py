"""Files and folders of a guest, copied to a folder of this host."""

from __future__ import annotations

import os
import stat as _stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import GuestOperationError, ImgtoolsError, OutputError, UsageError
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree, show
from imgtools.workflow.files import guest_tree
from imgtools.workflow.members import Member, members, too_deep
from imgtools.workflow.progress import Progress
from imgtools.workflow.selection import DiskArguments, run_selected, select_one
from imgtools.workflow.staging import Keep, Stage, exists, is_hopeless

MAX_FAILURES = 100


@dataclass(slots=True)
class Copied:
    """What a copy did: ``files`` counts entries of every kind, ``size`` bytes of files."""

    files: int = 0
    size: int = 0
    failures: list[ImgtoolsError] = field(default_factory=list)

    def fail(self, error: ImgtoolsError) -> None:
        """Note a failure; of very many the first ones are enough."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(error)


def copy_out(
    arguments: DiskArguments,
    paths: Sequence[bytes],
    place: Path,
    *,
    owners: bool = True,
    force: bool = False,
    mounts: Sequence[MountRequest] = (),
    progress: Progress | None = None,
) -> Outcome[Copied]:
    """Copy what ``paths`` lead to into the folder ``place``, each under its last component.

    ``/`` is copied as its content.  Links below a path stay links.  Owners and device nodes
    need root; set-id bits stay only with the owner and not of an ``untrusted`` image.  A file
    that cannot be read or written stops no other; all or nothing for anything worse.
    """
    root = os.geteuid() == 0
    keep = Keep(
        owners=owners and root,
        devices=root and not arguments.untrusted,
        capabilities=not arguments.untrusted,
    )
    names = [_name_of(path) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError("two of the paths have the same last component", hint="copy one by one")
    selection = select_one(arguments)
    stage = Stage(place, keep)
    try:
        for name in names:
            if name and not force and stage.has(name):
                raise exists(place, name)
        copier = _Copier(stage, progress or Progress())

        def task(session: Session) -> Copied:
            copier.restart()
            tree = guest_tree(session, mounts)
            for path, name in zip(paths, names, strict=True):
                copier.copy(tree, path, name)
            copier.warn(session)
            return copier.copied

        outcome = run_selected(task, selection, arguments)
        stage.commit(force=force)
    except OSError as error:
        raise OutputError(f"{place}: {error.strerror or error}") from error
    finally:
        stage.close()
    return outcome


def _name_of(path: bytes) -> bytes:
    """The last component of a guest path, empty for the root; never ``.`` or ``..``."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if not path.startswith(b"/") or b".." in parts:
        raise UsageError(
            f"{show(path)}: name a path from / without ..", hint="imgtools copy-out GUEST /etc DIR"
        )
    return parts[-1] if parts else b""


class _Copier:
    """Puts members into a stage and counts what could not be copied."""

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self._skipped: Counter[str] = Counter()
        self.copied = Copied()

    def restart(self) -> None:
        self._stage.restart()
        self._progress.restart()
        self._skipped.clear()
        self.copied = Copied()

    def copy(self, tree: GuestTree, path: bytes, name: bytes) -> None:
        """Copy ``path`` as ``name``; what is not there is a failure, no end."""
        try:
            tree.stat(path)
        except GuestOperationError as error:
            self.copied.fail(error)
            return
        missing: bytes | None = None  # a folder that could not be made, with all below it
        for member in members(tree, path, cut=self._cut):
            inner = b"/".join(part for part in (name, member.path) if part)
            below = missing is not None and (inner + b"/").startswith(missing + b"/")
            if not inner or below:
                continue
            self._progress.member(member.guest_path)
            if not self._make(tree, member, inner, name) and _stat.S_ISDIR(member.stat.mode):
                missing = inner

    def _cut(self, path: bytes) -> None:
        self.copied.fail(too_deep(path))

    def _make(self, tree: GuestTree, member: Member, path: bytes, name: bytes) -> bool:
        try:
            made = self._entry(tree, member, path, name)
        except GuestOperationError as error:
            self.copied.fail(error)
            return False
        except OSError as error:
            failure = OutputError(
                f"{show(path)}: cannot be written here: {error.strerror or error}"
            )
            if is_hopeless(error):
                raise failure from None
            self.copied.fail(failure)
            return False
        self.copied.files += made
        return made

    def _entry(self, tree: GuestTree, member: Member, path: bytes, name: bytes) -> bool:
        found, mode = member.stat, member.stat.mode
        if member.same_as is not None and self._link(path, name, member.same_as):
            return True
        if _stat.S_ISDIR(mode):
            self._stage.folder(path, found, self._xattrs(tree, member))
        elif _stat.S_ISREG(mode):
            with tree.open(member.guest_path) as source:
                self._stage.file(path, found, self._xattrs(tree, member), source, self._advance)
        elif member.target is not None:
            self._stage.symlink(path, found, member.target)
        elif _stat.S_ISFIFO(mode) or (self._stage.keep.devices and _is_device(mode)):
            self._stage.special(path, found)
        else:
            self._skipped["device node" if _is_device(mode) else "socket"] += 1
            return False
        return True

    def _link(self, path: bytes, name: bytes, same_as: bytes) -> bool:
        earlier = b"/".join(part for part in (name, same_as) if part)
        try:
            self._stage.hard_link(path, earlier)
        except OSError as error:  # the first name failed, or this host has no hard links
            if is_hopeless(error):
                raise
            return False
        return True

    def _xattrs(self, tree: GuestTree, member: Member) -> Mapping[bytes, bytes]:
        return tree.getxattrs(member.guest_path)

    def _advance(self, count: int) -> None:
        self.copied.size += count
        self._progress.advance(count)

    def warn(self, session: Session) -> None:
        """Say what was left out."""
        for what, count in sorted(self._skipped.items()):
            why = "" if what == "socket" else _why_no_devices()
            session.warn("copy.skipped", f"{count} {what}{'s'[: count > 1]} not copied{why}")
        for name, count in sorted(self._stage.unset.items()):
            files = f"{count} file{'s'[: count > 1]}"
            session.warn("copy.metadata", f"{name} could not be set on {files}")


def _is_device(mode: int) -> bool:
    return _stat.S_ISBLK(mode) or _stat.S_ISCHR(mode)


def _why_no_devices() -> str:
    return " (only root can make them)" if os.geteuid() else " (--untrusted)"
