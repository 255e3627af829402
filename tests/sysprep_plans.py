"""What the bundled operations would do to an image, and the state of its files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar

from fixtures.sysprep import Trace
from imgtools.api import Operation
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree
from imgtools.model.disks import DiskRequest
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one
from imgtools.workflow.sysprep.registry import GROUP, build
from imgtools.workflow.sysprep.running import prepare

T = TypeVar("T")
Plan = set[tuple[str, str]]

BUNDLED = build([EntryPoint(name="bundled", value="imgtools_ops:OPERATIONS", group=GROUP)])
OPERATIONS = BUNDLED.operations
# What changes no file by itself: each has tests of its own.
ELSEWHERE = {
    "customize": "appliance/test_customize.py",
    "fs-uuids": "appliance/test_uuids.py",
    "lvm-uuids": "appliance/test_uuids.py",
    "script": "appliance/test_sysprep_script.py",
    "swap-contents": "appliance/test_sysprep_swap.py",
}


def on_tree(image: Path, act: Callable[[GuestTree], T]) -> T:
    """What ``act`` makes of the guest's tree, by the direct engine."""

    def task(session: Session) -> T:
        return act(guest_tree(session, ()))

    arguments = DiskArguments(disks=(DiskRequest(path=image),), engine="direct")
    return run_selected(task, select_one(arguments), arguments).result


def each_alone(image: Path, **values: Any) -> dict[str, Plan]:
    """The plan of every operation by its name; paths with their folders' links followed."""
    given = {name.replace("_", "-"): value for name, value in values.items()}

    def act(tree: GuestTree) -> dict[str, Plan]:
        return {one.name: _plan(tree, [one], given)[one.name] for one in OPERATIONS}

    return on_tree(image, act)


def together(image: Path) -> dict[str, Plan]:
    """The plan of all default operations by name."""
    defaults = [one for one in OPERATIONS if one.default]
    return on_tree(image, lambda tree: _plan(tree, defaults, {}))


def _plan(
    tree: GuestTree, operations: Sequence[Operation], values: dict[str, Any]
) -> dict[str, Plan]:
    return {
        one.operation.name: {
            (action.verb, _path(tree, action.path)) for action in (*one.actions, *one.notes)
        }
        for one in prepare(tree, operations, values)
    }


def _path(tree: GuestTree, path: bytes) -> str:
    return tree.resolve(path, follow_last=False).decode()


def expected(traces: Sequence[Trace]) -> dict[str, Plan]:
    """What the operations shall do to these traces, by name."""
    plans: dict[str, Plan] = {}
    for one in traces:
        for name, verb, path in one.wanted:
            plans.setdefault(name, set()).add((verb, path))
    return plans


def state(image: Path) -> dict[str, tuple[Any, ...]]:
    """Mode, owner, times and content of everything but folders, whose times change with them."""

    def act(tree: GuestTree) -> dict[str, tuple[Any, ...]]:
        return {path.decode(): _state(tree, path) for path, _, _ in tree.walk(b"/")}

    return on_tree(image, act)


def _state(tree: GuestTree, path: bytes) -> tuple[Any, ...]:
    found = tree.lstat(path)
    owner = (found.mode, found.uid, found.gid)
    if stat.S_ISLNK(found.mode):
        return *owner, tree.readlink(path)
    if not stat.S_ISREG(found.mode):
        return owner
    with tree.open(path) as stream:
        return *owner, hashlib.file_digest(stream, "sha256").hexdigest(), found.mtime_ns
