"""Every bundled operation, run alone: what its dry run lists, all of it, nothing else, and once.

Those that leave the same on both guests run on the real Debian; the phony Fedora has the others.
Commands run in this process, as about a hundred starts of the program would cost a minute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures import sysprep
from imgtools.cli.main import run
from imgtools.guest.tree import GuestTree
from tests.appliance.scratch import overlay_of
from tests.appliance.small import digest
from tests.sysprep_plans import (
    ELSEWHERE,
    OPERATIONS,
    OTHERS,
    OWN,
    SSH_UNIT,
    SSH_WANTED,
    Hashes,
    Plan,
    State,
    expected,
    on_tree,
    resolved,
    state,
)

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]
Command = Callable[..., Any]


def wanted(guest: str, name: str) -> Plan:
    """What the operation shall do to the guest."""
    return expected(sysprep.traces(guest)).get(name, set()) | OWN[guest].get(name, set())


NAMES = [one.name for one in OPERATIONS if one.name not in ELSEWHERE]
CASES = [
    *(("debian", name) for name in NAMES if wanted("debian", name)),
    *(
        ("fedora", name)
        for name in NAMES
        if wanted("fedora", name) and wanted("fedora", name) != wanted("debian", name)
    ),
]
PEOPLE = {"debian": b"alice", "fedora": b"bob|locked|robot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A guest that is not to be changed: its files, and the bytes used on its filesystems."""

    image: Path
    state: State
    used: int


def used(image: Path) -> int:
    """Bytes used on all filesystems of the guest."""

    def act(tree: GuestTree) -> int:
        found = [tree.statvfs(one.mountpoint) for one in tree.mounts]
        return sum((one.blocks - one.bfree) * one.frsize for one in found)

    return on_tree(image, act)


@pytest.fixture(scope="module")
def hashes() -> Hashes:
    """Of the files of both guests, so that only what changes is read again."""
    return {}


@pytest.fixture(scope="module")
def bases(planted: Path, image: Image, hashes: Hashes) -> dict[str, Base]:
    """Both guests by name."""
    images = {"debian": planted, "fedora": image(sysprep.NAME)}
    return {
        name: Base(image=path, state=state(path, hashes), used=used(path))
        for name, path in images.items()
    }


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs ``imgtools words --json``, which must succeed and say nothing, for its result."""

    def result(*words: str | Path) -> Any:
        capfd.readouterr()
        code = run([*map(str, words), "--json"])
        shown = capfd.readouterr()
        assert (code, shown.err) == (0, ""), shown
        return json.loads(shown.out)["result"]

    return result


def test_every_operation_is_run_alone_here_or_elsewhere() -> None:
    assert {name for _, name in CASES} == set(NAMES)
    for guest, names in OTHERS.items():
        assert {name for name in NAMES if not wanted(guest, name)} == names


@pytest.mark.parametrize(("guest", "name"), CASES)
def test_alone_it_does_what_its_dry_run_lists_and_nothing_else(
    guest: str,
    name: str,
    bases: dict[str, Base],
    hashes: Hashes,
    command: Command,
    tmp_path: Path,
) -> None:
    base = bases[guest]
    disk = overlay_of(base.image, tmp_path / "disk.qcow2")
    did = run_alone(command, base, hashes, disk, ("--enable", name))
    notes = {("noted", one["path"]) for one in did.notes}
    assert {(verb, path) for verb, path, _ in did.actions} | notes == wanted(guest, name)
    assert_contents(disk, base.image, guest, name)


def test_customize_alone_does_what_its_dry_run_lists_and_nothing_else(
    bases: dict[str, Base], hashes: Hashes, command: Command, tmp_path: Path
) -> None:
    base = bases["fedora"]
    disk = overlay_of(base.image, tmp_path / "disk.qcow2")
    words = ("--truncate", "/etc/krb5.keytab", "--mkdir", "/srv/new", "--delete", "/var/log/app")
    words += ("--write", "/etc/hostname:new")
    did = run_alone(command, base, hashes, disk, ("--enable", "customize", *words))
    assert {(verb, path) for verb, path, _ in did.actions} == {
        ("written", "/etc/hostname"),
        ("changed", "/etc/krb5.keytab"),
        ("made", "/srv/new"),
        ("removed", "/var/log/app"),
    }
    assert on_tree(disk, lambda tree: tree.read(b"/etc/krb5.keytab", limit=9)) == b""
    assert on_tree(disk, lambda tree: tree.read(b"/etc/hostname", limit=9)) == b"new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """Verb, path with the links of its folders followed and bytes freed of each action; notes."""

    actions: list[tuple[str, str, int]]
    notes: list[dict[str, Any]]


def run_alone(
    command: Command, base: Base, hashes: Hashes, disk: Path, options: tuple[str, ...]
) -> Did:
    """Run one operation dry, for real and again, and look at the guest after each."""
    words = ("sysprep", "-a", disk, *options)
    untouched = digest(disk)
    dry = command(*words, "-n")
    assert (dry["committed"], digest(disk)) == (False, untouched)

    record = disk.with_name("record.json")
    real = command(*words, "--report", record)
    assert real["operations"] == dry["operations"]
    assert json.loads(record.read_text(encoding="utf-8")) == real
    [operation] = real["operations"]
    actions = list(done(base.image, operation))
    assert real["committed"] is bool(actions)

    assert_only(actions, base.state, state(disk, hashes))
    freed = sum(freed for _, _, freed in actions)
    assert real["freed"] == operation["freed"] == freed
    # nothing else takes room; of what customize removes nobody asks
    if {verb for verb, _, _ in actions} <= {"removed", "changed"}:
        assert base.used - used(disk) == freed

    changed = digest(disk)
    again = command(*words)
    assert (again["committed"], again["operations"][0]["actions"]) == (False, [])
    assert digest(disk) == changed
    return Did(actions=actions, notes=operation["notes"])


def done(image: Path, operation: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Verb, path with the links of its folders followed, and bytes freed of every action."""
    actions = operation["actions"]
    paths = on_tree(image, lambda tree: [resolved(tree, one["path"]) for one in actions])
    for one, path in zip(actions, paths, strict=True):
        yield one["verb"], path, one["freed"]


def assert_only(actions: list[tuple[str, str, int]], before: State, after: State) -> None:
    """What was removed is gone with all below, the rest that was named is another, all else is not.

    A file that is rewritten keeps its mode and owner.
    """
    gone = tuple(path for verb, path, _ in actions if verb == "removed")
    below = tuple(f"{path}/" for path in gone)
    left = {path for path in before if path not in gone and not path.startswith(below)}
    named = {path for verb, path, _ in actions if verb != "removed"}
    assert after.keys() == left | named
    assert {path for path in after if before.get(path) != after[path]} == named
    for path in named & before.keys():
        assert after[path][:3] == before[path][:3], path


def assert_contents(disk: Path, base: Path, guest: str, name: str) -> None:
    """What is left of the files that the operation edits, empties or makes is as it should be."""
    after = dict(contents(base, guest, name))
    found = on_tree(
        disk,
        lambda tree: {
            path: tree.readlink(path.encode())
            if path == SSH_WANTED
            else tree.read(path.encode(), limit=1 << 20)
            for path in after
        },
    )
    unit = found.pop(SSH_UNIT, None)
    assert found == {path: content for path, content in after.items() if path != SSH_UNIT}
    verbs = ("edited", "changed", "written", "made")
    assert after.keys() == {path for verb, path in wanted(guest, name) if verb in verbs}
    if unit is not None:
        assert b"ExecStart=/usr/bin/ssh-keygen -A\n" in unit
        assert b"Before=ssh.service\n" in unit
        assert unit.count(b"ConditionPathExists=|!/etc/ssh/ssh_host_") == 3


def contents(base: Path, guest: str, name: str) -> Iterator[tuple[str, bytes]]:
    """What the operation alone shall leave of each file that it does not remove."""
    for one in sysprep.traces(guest):
        if one.after is not None and name in {operation for operation, _, _ in one.wanted}:
            alone = dict(one.alone).get(name)
            path = f"/{one.entry.path.decode()}"
            yield path, one.after if alone is None else alone.encode()
    if name == "machine-id":
        yield "/etc/machine-id", b"uninitialized\n"
    if name == "flag-reconfiguration":
        yield "/.unconfigured", b""
    if name == "hostname-file" and guest == "debian":
        yield "/etc/hosts", b"127.0.0.1 localhost\n"
    if name == "ssh-hostkeys" and guest == "debian":
        yield SSH_UNIT, b""
        yield SSH_WANTED, SSH_UNIT.encode()
    if name == "user-account":
        # their own lines, and their names at the end of a list
        people = re.compile(rb"^(?:%b):.*\n|(?<=:)(?:%b)$" % (2 * (PEOPLE[guest],)), re.MULTILINE)
        for verb, path in OWN[guest][name]:
            if verb == "edited":
                text = on_tree(base, lambda tree, path=path: tree.read(path.encode(), limit=9999))
                yield path, people.sub(b"", text)


@pytest.mark.parametrize(
    ("guest", "name"), [(guest, name) for guest, names in OTHERS.items() for name in sorted(names)]
)
def test_nothing_to_do_is_said(
    guest: str, name: str, bases: dict[str, Base], capfd: pytest.CaptureFixture[str]
) -> None:
    disk = bases[guest].image
    before = digest(disk)
    assert run(["sysprep", "-a", str(disk), "--enable", name]) == 0
    assert capfd.readouterr() == ("", "imgtools: nothing to do: the guest is so already\n")
    assert digest(disk) == before
