"""What the bundled operations would do to an image, and the state of its files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeVar

from fixtures.sysprep import Trace
from imgtools.api import Operation
from imgtools.errors import GuestFileNotFoundError
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree
from imgtools.model.disks import DiskRequest
from imgtools.model.files import Stat
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
SSH_UNIT = "/etc/systemd/system/imgtools-ssh-keys.service"
SSH_WANTED = f"/etc/systemd/system/multi-user.target.wants/{SSH_UNIT.rpartition('/')[2]}"
# What no trace was planted for: the guests' own, and what is made.
OWN: dict[str, dict[str, Plan]] = {
    "debian": {
        "flag-reconfiguration": {("made", "/.unconfigured")},
        "hostname-file": {("removed", "/etc/hostname"), ("edited", "/etc/hosts")},
        "logfiles": {
            ("removed", f"/var/log/{name}.log") for name in ("alternatives", "bootstrap", "dpkg")
        },
        "machine-id": {("edited", "/etc/machine-id"), ("removed", "/var/lib/dbus/machine-id")},
        "passwd-backups": {
            ("removed", f"/etc/{name}-")
            for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")
        },
        "ssh-hostkeys": {
            *(
                ("removed", f"/etc/ssh/ssh_host_{kind}_key{end}")
                for kind in ("ecdsa", "ed25519", "rsa")
                for end in ("", ".pub")
            ),
            ("written", SSH_UNIT),
            ("made", SSH_WANTED),
        },
        "user-account": {
            *(
                ("edited", f"/etc/{name}")
                for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")
            ),
            ("removed", "/home/alice"),
        },
    },
    "fedora": {
        "flag-reconfiguration": {("made", "/.unconfigured")},
        "fs-uuids": {("changed", "/dev/sda1"), ("edited", "/etc/fstab")},
        "hostname-file": {("removed", "/etc/hostname")},
        "machine-id": {("edited", "/etc/machine-id")},
        "user-account": {("edited", f"/etc/{name}") for name in ("group", "passwd", "shadow")},
    },
}
# Not for this family, whose own package or nobody does that.
OTHERS = {"debian": {"net-hostname", "net-nmconn"}, "fedora": set[str]()}


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


State = dict[str, tuple[Any, ...]]
Hashes = dict[tuple[Any, ...], str]


def state(image: Path, known: Hashes | None = None) -> State:
    """Mode, owner, size, times and content of everything but folders, whose times change with them.

    ``known`` are hashes of files of images that rest on the same one: where the kernel's record of
    an inode is the same, ctime and all, its content is not read again.
    """
    hashes = {} if known is None else known

    def act(tree: GuestTree) -> State:
        return {path.decode(): _state(tree, path, found, hashes) for path, found in _all(tree)}

    return on_tree(image, act)


def _all(tree: GuestTree) -> Iterator[tuple[bytes, Stat]]:
    for path, _, found in tree.walk(b"/"):
        yield path, found


def _state(tree: GuestTree, path: bytes, found: Stat, hashes: Hashes) -> tuple[Any, ...]:
    owner = (found.mode, found.uid, found.gid)
    if stat.S_ISLNK(found.mode):
        return *owner, tree.readlink(path)
    if not stat.S_ISREG(found.mode):
        return owner
    # Without a part of a second it may be no ctime of a kernel: of mkfs, or no ctime at all.
    sure = found.ctime_ns % 10**9 != 0
    key = (path, found.ino, found.size, found.mtime_ns, found.ctime_ns)
    if not sure or key not in hashes:
        with tree.open(path) as stream:
            hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return *owner, hashes[key], found.size, found.mtime_ns


def resolved(tree: GuestTree, path: str) -> str:
    """The path with links in its folders followed, also where a folder is yet to be made."""
    try:
        return tree.resolve(path.encode(), follow_last=False).decode()
    except GuestFileNotFoundError:
        return path
