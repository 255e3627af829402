"""Run operations on a guest: all of them are planned first, then done in one transaction.

The plan is made on the guest as it was, by the direct engine if that can, so that a dry run lists
exactly what the real one does.  What two operations want is the first one's; what lies in a folder
that an earlier one removes is not listed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from imgtools.api import Action, Guest, Operation
from imgtools.errors import (
    DirectError,
    GuestFileNotFoundError,
    GuestOperationError,
    ImgtoolsError,
    MissingToolError,
    UsageError,
)
from imgtools.guest.mounting import MountRequest, refuse_unmounted
from imgtools.guest.opening import Session
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles
from imgtools.model.notices import Notice
from imgtools.workflow.changing import How, Result, change
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

Values = Mapping[str, Any]
"""The options of operations; an `imgtools.api.Values` where their order matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What one operation does to the guest; ``applies`` is False for another family's.

    ``notes`` are what it tells and does not change.
    """

    operation: Operation
    actions: tuple[Action, ...]
    applies: bool = True
    notices: tuple[Notice, ...] = ()
    notes: tuple[Action, ...] = ()

    @property
    def freed(self) -> int:
        """Bytes that it gives back."""
        return sum(action.freed for action in self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was done, or with a dry run would be; ``committed``: whether the images have it."""

    prepared: tuple[Prepared, ...]
    committed: bool
    engine: str
    warnings: tuple[Notice, ...] = ()


def sysprep(
    arguments: DiskArguments,
    operations: Sequence[Operation],
    values: Values,
    how: How,
    *,
    mounts: Sequence[MountRequest] = (),
) -> Report:
    """Run ``operations`` on the guest, all or none.

    Raises what `imgtools.workflow.changing.change` raises, and GuestOperationError naming the
    operation that failed, with the images as they were.
    """
    if how.dry_run:
        return _dry_run(arguments, operations, values, mounts, how)
    step = _Sysprep(operations=operations, values=values)
    result: Result = change(arguments, [step], how, command="sysprep", mounts=mounts)
    return Report(
        prepared=tuple(step.prepared),
        committed=result.committed,
        engine="appliance",
        warnings=(*result.warnings, *_notices(step.prepared)),
    )


def _notices(prepared: Sequence[Prepared]) -> tuple[Notice, ...]:
    return tuple(notice for one in prepared for notice in one.notices)


def _dry_run(
    arguments: DiskArguments,
    operations: Sequence[Operation],
    values: Values,
    mounts: Sequence[MountRequest],
    how: How,
) -> Report:
    selection = select_one(arguments)

    def task(session: Session) -> list[Prepared]:
        tree = guest_tree(session, mounts)
        refuse_unmounted(how.mount_options, (one.mountpoint for one in tree.mounts))
        return _acting(tree, prepare(tree, operations, values))

    outcome = run_selected(task, selection, arguments)
    return Report(
        prepared=tuple(outcome.result),
        committed=False,
        engine=outcome.engine,
        warnings=(*outcome.warnings, *_notices(outcome.result)),
    )


def prepare(
    tree: GuestTree,
    operations: Sequence[Operation],
    values: Values,
    kept: Iterable[bytes] = (),
) -> list[Prepared]:
    """Plan every operation on the guest as it is.

    What an earlier one makes in any case (`Action.always`) is not removed, nor are ``kept``.
    """
    guest = Guest(tree)
    gone: set[bytes] = set()
    made = set(kept)
    prepared = []
    for operation in operations:
        guest.warnings.clear()
        if not operation.applies(guest):
            prepared.append(Prepared(operation=operation, actions=(), applies=False))
            continue
        try:
            wanted = _wanted(tree, operation.plan(guest, values), gone, made)
        except DirectError:
            raise  # the appliance will be asked
        except (UsageError, MissingToolError):
            raise
        except ImgtoolsError as error:
            raise _failed(operation, error) from error
        except Exception as error:  # a plugin's own fault
            raise GuestOperationError(
                f"operation {operation.name} failed: {type(error).__name__}: {error}; "
                "the image is as it was",
                hint=f"leave it out with --operations -{operation.name}, and tell its author",
            ) from error
        made |= _made(tree, wanted)
        notices = tuple(
            Notice(code=f"sysprep.{operation.name}", message=text) for text in guest.warnings
        )
        prepared.append(
            Prepared(
                operation=operation,
                actions=tuple(one for one in wanted if one.verb != "noted"),
                notices=notices,
                notes=tuple(one for one in wanted if one.verb == "noted"),
            )
        )
    return prepared


def _acting(tree: GuestTree, prepared: Sequence[Prepared]) -> list[Prepared]:
    """The same without what is done in any case (`Action.always`) and would change nothing.

    A step knows that of the guest as it is: after a program, or a change at the same place, it may
    have something to do.
    """
    touched: set[bytes] = set()
    ran = False
    acting = []
    for one in prepared:
        actions = []
        for action in one.actions:
            path = action.path
            if path.startswith(b"/"):  # else it is a command
                path = _resolved(tree, path)
            near = _holds(path, touched) or any(path.startswith(other + b"/") for other in touched)
            if action.always and not ran and not near and _is_idle(action, tree):
                continue
            actions.append(action)
            touched.add(path)
            ran = ran or action.verb == "ran"
        acting.append(replace(one, actions=tuple(actions)))
    return acting


def _is_idle(action: Action, tree: GuestTree) -> bool:
    try:
        return action.step.idle(tree)
    except GuestOperationError:  # it needs what comes before it, or fails when it is done
        return False


def _made(tree: GuestTree, actions: Iterable[Action]) -> set[bytes]:
    """The places of what actions make in any case."""
    verbs = ("written", "edited", "made", "changed", "copied")
    paths = (one.path for one in actions if one.always and one.verb in verbs)
    return {_resolved(tree, path) for path in paths if path.startswith(b"/")}


def _wanted(
    tree: GuestTree, actions: Iterable[Action], gone: set[bytes], made: set[bytes]
) -> list[Action]:
    """The actions whose path no earlier one removes or makes; ``gone`` takes what they remove."""
    wanted = []
    for action in actions:
        if action.always or action.unmounted:
            wanted.append(action)
            continue
        path = _resolved(tree, action.path)
        parts = path.split(b"/")
        if any(b"/".join(parts[:depth]) in gone for depth in range(2, len(parts) + 1)):
            continue
        if action.verb in ("removed", "changed") and _holds(path, made):
            continue
        wanted.append(action)
        if action.verb == "removed":
            gone.add(path)
    return wanted


def _holds(path: bytes, made: set[bytes]) -> bool:
    """True if ``path`` is one of ``made``, or a folder that holds one."""
    return path in made or any(one.startswith(path + b"/") for one in made)


def _resolved(tree: GuestTree, path: bytes) -> bytes:
    try:
        return tree.resolve(path, follow_last=False)
    except GuestOperationError:
        return path  # in a folder that an action before this one makes


def _failed(operation: Operation, error: ImgtoolsError) -> GuestOperationError:
    return GuestOperationError(
        f"operation {operation.name}: {error.message}; the image is as it was",
        hint=error.hint or f"leave it out with --operations -{operation.name}",
    )


@dataclass(kw_only=True)
class _Sysprep:
    """All operations as one step of a change."""

    operations: Sequence[Operation]
    values: Values
    prepared: list[Prepared] = field(default_factory=list)

    def idle(self, tree: GuestTree) -> bool:
        """Plan on the direct engine's view; True if there is nothing to do."""
        self.prepared = prepare(tree, self.operations, self.values)
        acting = _acting(tree, self.prepared)
        if any(one.actions for one in acting):
            return False
        self.prepared = acting
        return True

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do what was planned: what needs devices with nothing mounted, then the files."""
        if not self.prepared:
            self.prepared = prepare(guest, self.operations, self.values)
        done: list[Done] = []
        for number, planned in enumerate(self.prepared):
            self.prepared[number] = self._do(planned, guest, done, unmounted=True)
        made: set[bytes] = set()
        changed = False
        for number, planned in enumerate(self.prepared):
            one = planned
            if changed and not any(action.unmounted for action in one.actions):
                # Programs may have run since the plan was made, and left what must go.
                [one] = prepare(guest, [planned.operation], self.values, made)
            made |= _made(guest, one.actions)
            self.prepared[number] = self._do(one, guest, done, unmounted=False)
            changed = changed or any(action.always for action in one.actions)
        return done

    def _do(
        self, one: Prepared, guest: GuestFiles, done: list[Done], *, unmounted: bool
    ) -> Prepared:
        """Do the actions on devices or those on files; the operation as it is to be reported."""
        try:
            actions = [
                self._one(action, guest, done) if action.unmounted is unmounted else action
                for action in one.actions
            ]
        except GuestOperationError as error:
            raise _failed(one.operation, error) from error
        return replace(one, actions=tuple(action for action in actions if action is not None))

    def _one(self, action: Action, guest: GuestFiles, done: list[Done]) -> Action | None:
        """Do one action; the action as it is to be reported, None if the guest was so already."""
        new = _perform(action, guest)
        done += new
        if action.always and not new:
            return None
        details = ", ".join(one.detail for one in new)
        return replace(action, detail=details) if action.unmounted else action


def _perform(action: Action, guest: GuestFiles) -> list[Done]:
    try:
        return action.step.perform(guest)
    except GuestFileNotFoundError:
        # A script that ran before it may have removed it.
        if action.verb in ("removed", "edited"):
            return []
        raise
