"""Guests in memory, and what an operation does to their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgtools.api import Guest, Operation
from imgtools.guest.steps import Rewrite
from imgtools.guest.tree import GuestTree, Mount
from imgtools.workflow.sysprep.running import prepare
from imgtools_ops import OPERATIONS
from tests.unit.guest.guests import nested
from tests.unit.memory_tree import MemoryTree

BY_NAME: Mapping[str, Operation] = {one.name: one for one in OPERATIONS}


def make_tree(
    files: Mapping[str, Any], mounts: Mapping[str, Mapping[str, Any]] | None = None
) -> GuestTree:
    """A guest of files by path, and filesystems by mountpoint; str are links, {} a folder."""
    found = [Mount(mountpoint=b"/", device="/dev/sda1", tree=MemoryTree(nested(files)))]
    for number, (point, content) in enumerate((mounts or {}).items(), 2):
        tree = MemoryTree(nested(content))
        found.append(Mount(mountpoint=point.encode(), device=f"/dev/sda{number}", tree=tree))
    return GuestTree(found)


def plan(name: str, tree: GuestTree, values: Mapping[str, Any] | None = None) -> list[str]:
    """``VERB PATH`` of every action, in order."""
    [prepared] = prepare(tree, [BY_NAME[name]], values or {})
    return [f"{one.verb} {one.path.decode()}" for one in prepared.actions]


def after(name: str, tree: GuestTree, path: str, values: Mapping[str, Any] | None = None) -> bytes:
    """The content of a file once the operation has edited it."""
    content = tree.read(path.encode(), limit=1 << 20)
    for action in BY_NAME[name].plan(Guest(tree), values or {}):
        if action.path == path.encode() and isinstance(action.step, Rewrite):
            content = action.step.transform(content)
    return content
