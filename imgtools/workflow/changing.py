"""Change a guest in one transaction and one launch: lock, work on an overlay, show, commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from imgtools.errors import (
    DirectError,
    InUseError,
    MissingBindingError,
    RefusedError,
    UsageError,
)
from imgtools.guest.compare import Change, compare_trees
from imgtools.guest.mounting import MountRequest, refuse_unmounted
from imgtools.guest.opening import Session, run_on_engine
from imgtools.guest.steps import Done, Step
from imgtools.guest.text_diff import text_diff
from imgtools.guest.tree import GuestTree, Mount
from imgtools.guest.writing import DEAF, Ears, GuestFiles, Planned, plan_of
from imgtools.model.disks import Disk
from imgtools.model.engine import PLAIN, Machine
from imgtools.model.notices import Notice
from imgtools.transaction.transaction import Transaction
from imgtools.workflow.files import guest_tree
from imgtools.workflow.held import refuse_running
from imgtools.workflow.opening import finish_interrupted, through
from imgtools.workflow.selection import DiskArguments, Target, resolve, targets

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """``dry_run``: throw the result away; ``listing``: say what differs; ``diff``: as text, too.

    ``workdir`` is the folder for the overlays, beside the images by default; ``break_overlays``
    allows an image to change on which others rest.  ``mount_options`` are more options for the
    guest's filesystems, by mountpoint.  ``machine`` is what the appliance needs, and ``ears`` are
    told what programs of the guest say.
    """

    dry_run: bool = False
    listing: bool = False
    diff: bool = False
    workdir: Path | None = None
    break_overlays: bool = False
    mount_options: Mapping[bytes, str] = field(default_factory=dict)
    machine: Machine = PLAIN
    ears: Ears = DEAF


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A changed path, with its unified diff where one was asked for and makes sense."""

    change: Change
    diff: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was done; ``committed`` says whether the images have it.

    ``changes`` is None where nobody asked for the list.
    """

    done: tuple[Done, ...]
    committed: bool
    changes: tuple[Shown, ...] | None
    warnings: tuple[Notice, ...]


def change(
    arguments: DiskArguments,
    steps: Sequence[Step],
    how: How,
    *,
    command: str,
    mounts: Sequence[MountRequest] = (),
) -> Result:
    """Run ``steps`` on the guest, all or none.

    Raises RefusedError and its kin for a guest that runs, an image that is locked, read-only or
    lacks space; whatever a step raises, with the images as they were; CommitError.
    """
    if arguments.engine == "direct":
        raise UsageError("changes are made through the appliance", hint="leave --engine out")
    target = _one(arguments)
    _refuse_running(target)
    for request in target.requests:
        if request.path is not None:
            finish_interrupted(request.path, untrusted=arguments.untrusted)
    selection = resolve(target, untrusted=arguments.untrusted)
    disks = [replace(disk, in_use=False) for disk in selection.disks]
    with Transaction(
        disks, command=command, workdir=how.workdir, break_overlays=how.break_overlays
    ) as transaction:
        plan, idle = _look(arguments, disks, selection.name, steps, mounts)
        if plan is not None:
            refuse_unmounted(how.mount_options, (one.mountpoint for one in plan))
        if idle:
            listed = () if how.listing or how.diff else None
            return Result(done=(), committed=False, changes=listed, warnings=selection.notices)
        worker = _Worker(arguments, transaction, selection.name, how)
        with worker.open(plan, mounts) as guest:
            done = [one for step in steps for one in step.perform(guest)]
        changes = None
        if done and (how.listing or how.diff):
            changes = _compare(arguments, transaction, worker.touched, how)
        if done and not how.dry_run:
            transaction.commit()
        return Result(
            done=tuple(done),
            committed=bool(done) and not how.dry_run,
            changes=changes if changes is not None or not (how.listing or how.diff) else (),
            warnings=(*selection.notices, *worker.warnings),
        )


def _one(arguments: DiskArguments) -> Target:
    if len(arguments.domains) > 1:
        raise UsageError("this command changes one guest", hint="name one -d DOMAIN")
    return targets(arguments)[0]


def _refuse_running(target: Target) -> None:
    if target.running:
        raise InUseError(f"domain {target.name} is running", hint=f"virsh shutdown {target.name}")
    if any(notice.code == "domain.saved-state" for notice in target.notices):
        raise RefusedError(
            f"domain {target.name} has a saved state: its memory would not fit a changed disk",
            hint=f"start and shut it down, or: virsh managedsave-remove {target.name}",
        )
    if target.remote is not None:
        raise RefusedError(
            f"domain {target.name} is on {target.remote}: its images cannot be locked from here",
            hint="run imgtools on that host",
        )
    refuse_running(request.path for request in target.requests if request.path is not None)


def _look(
    arguments: DiskArguments,
    disks: Sequence[Disk],
    name: str,
    steps: Sequence[Step],
    mounts: Sequence[MountRequest],
) -> tuple[tuple[Planned, ...] | None, bool]:
    """What is mounted where, and whether no step has anything to do, read direct.

    (None, False) where the direct engine cannot tell: the appliance then looks for itself.
    """
    if arguments.engine == "appliance":
        return None, False

    def task(session: Session) -> tuple[tuple[Planned, ...] | None, bool]:
        _refuse_hibernated(session)
        tree = guest_tree(session, mounts)
        return plan_of(tree), all(step.idle(tree) for step in steps)

    try:
        return run_on_engine(
            task, disks, name=name, choice="direct", keys=arguments.keys, config=arguments.config
        ).result
    except (DirectError, MissingBindingError):
        return None, False


def _refuse_hibernated(session: Session) -> None:
    """A guest that sleeps on its disk has filesystems in its memory that would not fit any more."""
    for filesystem in session.engine.storage().filesystems:
        if filesystem.type == "swsuspend":
            raise RefusedError(
                f"{session.name}: the guest is hibernated (its memory is on {filesystem.device})",
                hint="start it and shut it down properly first",
            )


class _Worker:
    """The appliance that writes to the overlays of a transaction."""

    def __init__(
        self, arguments: DiskArguments, transaction: Transaction, name: str, how: How
    ) -> None:
        self._how = how
        self._arguments = arguments
        self._transaction = transaction
        self._name = name
        self.warnings: list[Notice] = []
        self.touched: tuple[Planned, ...] = ()

    @contextlib.contextmanager
    def open(
        self, plan: tuple[Planned, ...] | None, mounts: Sequence[MountRequest]
    ) -> Iterator[GuestFiles]:
        """The guest's files; when the block ends well, the overlays are complete."""
        from imgtools.appliance.engine import ApplianceEngine
        from imgtools.transaction.space import Watch

        transaction, arguments = self._transaction, self._arguments
        engine = ApplianceEngine(
            transaction.disks,
            arguments.keys,
            arguments.config,
            overlays=transaction.overlays,
            machine=self._how.machine,
        )
        with contextlib.closing(engine):
            appliance = engine.appliance
            with Watch(transaction.folders, appliance.doom):
                if plan is None:
                    session = Session(engine=engine, disks=transaction.disks, name=self._name)
                    _refuse_hibernated(session)
                    plan = plan_of(guest_tree(session, mounts))
                    self.warnings += session.warnings
                refuse_unmounted(self._how.mount_options, (one.mountpoint for one in plan))
                engine.mount_options = self._how.mount_options
                engine.begin_writing()
                guest = GuestFiles(plan, engine.mount_writable, engine, engine, self._how.ears)
                guest.storage = engine.storage
                guest.swap_is_clear = engine.swap_is_clear
                yield guest
                engine.finish_writing()
                self.touched = guest.touched
            self.warnings += engine.notices


def _compare(
    arguments: DiskArguments, transaction: Transaction, touched: Sequence[Planned], how: How
) -> tuple[Shown, ...]:
    """What differs between the images and their overlays, which nobody has open any more.

    Only filesystems that were mounted for writing are looked at; the others are as they were.
    """
    above = [
        through(overlay, disk)
        for disk, overlay in zip(transaction.disks, transaction.overlays, strict=True)
    ]

    def look(disks: Sequence[Disk], task: Callable[[Session], T]) -> T:
        # --engine appliance is for what direct is suspected to read wrongly: keep to it here, too.
        return run_on_engine(
            task,
            disks,
            name="the change",
            choice=arguments.engine,
            keys=arguments.keys,
            config=arguments.config,
        ).result

    def with_old(old: Session) -> tuple[Shown, ...]:
        def with_new(new: Session) -> tuple[Shown, ...]:
            return tuple(
                one for planned in touched for one in _in_one(planned, old, new, diff=how.diff)
            )

        return look(above, with_new)

    return look(transaction.disks, with_old)


def _in_one(planned: Planned, old: Session, new: Session, *, diff: bool) -> Iterator[Shown]:
    """The changes of one filesystem, under the paths that the guest gives them."""
    before, after = _alone(planned, old), _alone(planned, new)
    for found in compare_trees(before, after, same_filesystem=True, times=True):
        lines = None
        if diff and (found.kind != "modified" or "content" in found.differences):
            lines = text_diff(before, after, found)
        # That a file with other content has another time goes without saying.
        kept = tuple(one for one in found.differences if one != "times") or found.differences
        path = (planned.mountpoint.rstrip(b"/") + found.path).rstrip(b"/") or b"/"
        change = replace(found, path=path, differences=kept)
        yield Shown(change=change, diff=None if lines is None else tuple(lines))


def _alone(planned: Planned, session: Session) -> GuestTree:
    filesystems = session.engine.storage().filesystems
    kind = next((one.type for one in filesystems if one.device == planned.device), "")
    tree = session.engine.mount(planned.device)
    return GuestTree([Mount(b"/", planned.device, tree, kind)])
