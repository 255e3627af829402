"""What differs between two guests, or between a guest and an earlier state of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from imgtools.errors import UsageError
from imgtools.guest.compare import Change, compare_trees, text_diff
from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.inspection import Inspection
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree, show
from imgtools.model.disks import Disk, ImageLayer
from imgtools.model.engine import EngineName
from imgtools.model.files import Stat
from imgtools.model.notices import Notice
from imgtools.workflow.checksums import checksum
from imgtools.workflow.facts import FactChange, Facts, compare_facts, facts_of
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, Selection, run_selected, select_one


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """What counts as a difference, and what to say of it.

    ``read`` compares contents, else sizes and times decide; ``trust`` leaves files of an overlay
    unread whose inode and ctime say that nobody touched them; ``text`` adds text diffs;
    ``checksum`` is a type of `checksums.CHECKSUMS`; ``facts`` compares the inspections.
    """

    read: bool = True
    trust: bool = True
    text: bool = False
    xattrs: bool = False
    times: bool = False
    atime: bool = False
    dir_times: bool = False
    dir_links: bool = False
    checksum: str | None = None
    facts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a change: what a listing of the file would show."""

    stat: Stat
    device: str
    target: bytes | None = None
    checksum: str | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A change with what both sides show; ``text`` is a unified diff, None if there is none."""

    change: Change
    before: Side | None
    after: Side | None
    text: tuple[str, ...] | None = None


class Sink(Protocol):
    """Where differences go.  With *auto* the comparison may start again from the beginning."""

    def restart(self) -> None:
        """Forget everything: the comparison begins."""

    def difference(self, found: Difference) -> None:
        """One path that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffResult:
    """How many paths differ, and which facts; ``engines`` are those of the old and the new."""

    changes: int
    facts: tuple[FactChange, ...]
    engines: tuple[EngineName, EngineName]
    reasons: tuple[str, str] = ("", "")
    warnings: tuple[Notice, ...] = ()

    @property
    def differ(self) -> bool:
        """True when anything differs."""
        return bool(self.changes or self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    changes: int
    facts: tuple[FactChange, ...]


def diff(
    old: Selection,
    new: Selection,
    arguments: DiskArguments,
    options: DiffOptions,
    sink: Sink,
    *,
    mounts: Sequence[MountRequest] = (),
) -> DiffResult:
    """Compare the guest on ``old`` with that on ``new``, path by path, into ``sink``.

    Each side takes the engine that it needs.  Files that a kernel has not touched since ``old``
    became the backing file or a snapshot of ``new`` are not read.
    """

    def compare_with(first: Session) -> Outcome[_Compared]:
        tree = guest_tree(first, mounts)  # what is wrong with the old side shows before the new

        def compare(second: Session) -> _Compared:
            sink.restart()
            other = guest_tree(second, mounts)
            related = options.trust and _related(old, new)
            count = _compare_files(second, tree, other, options, sink, related=related)
            facts = () if mounts or not options.facts else _compare_facts(first, second)
            return _Compared(changes=count, facts=facts)

        return run_selected(compare, new, arguments)

    outer = run_selected(compare_with, old, arguments)
    inner = outer.result
    return DiffResult(
        changes=inner.result.changes,
        facts=inner.result.facts,
        engines=(outer.engine, inner.engine),
        reasons=(outer.reason, inner.reason),
        warnings=(*outer.warnings, *(w for w in inner.warnings if w not in outer.warnings)),
    )


def _compare_files(
    session: Session,
    old: GuestTree,
    new: GuestTree,
    options: DiffOptions,
    sink: Sink,
    *,
    related: bool,
) -> int:
    def cut(path: bytes) -> None:
        session.warn("diff.depth", f"{show(path)[-200:]}: is too deep, or holds itself; left out")

    count = 0
    for change in compare_trees(
        old,
        new,
        content=options.read,
        times=options.times or not options.read,
        atime=options.atime,
        dir_times=options.dir_times,
        dir_links=options.dir_links,
        same_filesystem=related,
        cut=cut,
    ):
        count += 1
        lines = text_diff(old, new, change) if options.text and _is_content(change) else None
        sink.difference(
            Difference(
                change=change,
                before=_side(old, change.path, change.before, options),
                after=_side(new, change.path, change.after, options),
                text=None if lines is None else tuple(lines),
            )
        )
    return count


def _is_content(change: Change) -> bool:
    return "content" in change.differences


def _side(tree: GuestTree, path: bytes, found: Stat | None, options: DiffOptions) -> Side | None:
    if found is None:
        return None
    total = None
    if options.checksum is not None and found.kind == "r":
        with tree.open(path) as stream:
            total = checksum(stream, options.checksum)
    return Side(
        stat=found,
        device=tree.mount_of(path).device,
        target=tree.readlink(path) if found.kind == "l" else None,
        checksum=total,
        xattrs=tuple(sorted(tree.getxattrs(path).items())) if options.xattrs else (),
    )


def _compare_facts(first: Session, second: Session) -> tuple[FactChange, ...]:
    """Facts that differ between the two systems (the trees are open: there is one each)."""
    old, new = _facts(first), _facts(second)
    return tuple(compare_facts(old, new))


def _facts(session: Session) -> Facts:
    found = inspect_guests(session, icon=False)
    return facts_of(found[0] if found else Inspection(root=""))


# --- which states are compared -------------------------------------------------------------------


def select_pair(first: DiskArguments, second: DiskArguments) -> tuple[Selection, Selection]:
    """Two guests that the user named."""
    return select_one(first), select_one(second)


def select_backing(arguments: DiskArguments) -> tuple[Selection, Selection]:
    """The guest as it was when its disks' backing files were made, and as it is.

    A disk without a backing file is the same on both sides.  Raises UsageError when none has
    one.
    """
    new = select_one(arguments)
    if not any(len(disk.layers) > 1 for disk in new.disks):
        raise UsageError(
            f"{new.name}: has no backing file to be compared with",
            hint="imgtools diff -a OLD -A NEW compares two images",
        )
    disks = tuple(_below(disk) for disk in new.disks)
    return replace(new, name=f"{new.name} (backing)", disks=disks), new


def _below(disk: Disk) -> Disk:
    if len(disk.layers) < 2:
        return disk
    layers = disk.layers[1:]
    request = replace(disk.request, path=layers[0].path, uri=None, format=layers[0].format)
    return replace(disk, request=request, layers=layers)


def select_snapshot(arguments: DiskArguments, name: str) -> tuple[Selection, Selection]:
    """The guest as it was when the internal snapshot ``name`` was made, and as it is.

    Every disk must hold one of this name or id.  Raises SnapshotNotFoundError, UsageError.
    """
    from imgtools.workflow.opening import resolve_disks

    new = select_one(arguments)
    remote = next((disk for disk in new.disks if not disk.layers), None)
    if remote is not None:
        raise UsageError(f"{remote.name}: snapshots of a remote disk cannot be read")
    requests = [replace(disk.request, snapshot=name) for disk in new.disks]
    disks = resolve_disks(requests, untrusted=arguments.untrusted)
    return replace(new, name=f"{new.name} ({name})", disks=disks), new


def _related(old: Selection, new: Selection) -> bool:
    """True if each disk is an overlay of its counterpart, or a snapshot: inodes mean the same."""
    if len(old.disks) != len(new.disks):
        return False
    pairs = [(a.layers, b.layers) for a, b in zip(old.disks, new.disks, strict=True)]
    return all(_descends(a, b) for a, b in pairs) or all(_descends(b, a) for a, b in pairs)


def _descends(old: tuple[ImageLayer, ...], new: tuple[ImageLayer, ...]) -> bool:
    if not old or len(new) < len(old):
        return False
    base = new[-len(old) :]
    return [layer.path for layer in old] == [layer.path for layer in base]
