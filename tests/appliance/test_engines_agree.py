"""Both engines tell the same of every fixture: whole documents, volumes, and numbers of df.

A launch costs far more than a disk, so the fixtures are dealt into a few hands; both engines see
a hand's disks together.  What direct must leave to the appliance is listed, and must be refused.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import pytest

import fixtures
from imgtools.config import EngineChoice
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    ImgtoolsError,
    UncleanError,
)
from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.opening import Outcome, Session, run_on_engine
from imgtools.model.disks import Disk, DiskRequest, KeySpec
from imgtools.model.files import StatVFS
from imgtools.workflow.opening import resolve_disks
from tests.cli import imgtools

pytestmark = pytest.mark.appliance

HANDS = 7
KEYS = [KeySpec(id="all", secret=fixtures.PASSPHRASE.encode())]

# Fixtures that direct must refuse, and why; the rest it must read.
REFUSED: dict[str, type[ImgtoolsError]] = {
    "ext4-unclean": UncleanError,
    "lvm-unclean": UncleanError,
    "xfs-unclean": UncleanError,
    "btrfs-unclean": UncleanError,
    "f2fs": DirectUnsupportedError,
    "iso9660": DirectUnsupportedError,
    "udf": DirectUnsupportedError,
    "ufs1": DirectUnsupportedError,
    "ufs2": DirectUnsupportedError,
    "ldm": DirectUnsupportedError,
    "ldm-fresh": DirectUnsupportedError,
    "qed": DirectUnsupportedError,
    "qcow2-data-file": DirectUnsupportedError,
    "lvm-snapshot": DirectUnsupportedError,
    "lvm-raid1": DirectUnsupportedError,
    "hostile-gpt-crc": DamagedError,
}
# Too slow to be read twice, or not an image; their own tests read them.
LEFT_OUT = {"hostile-million-packages", "hostile-big-os-release"}


def readable() -> list[str]:
    """The fixtures that both engines read."""
    return [
        name
        for name in fixtures.names()
        if "part" not in fixtures.recipe(name).tags and name not in {*REFUSED, *LEFT_OUT}
    ]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What an engine told of one hand of disks."""

    storage: dict[str, tuple[Any, ...]]
    guests: list[Any]
    space: dict[str, StatVFS | str]


def hand_of(name: str) -> int:
    """Dealt one by one, so that near relatives (clones, arrays) lie in different hands."""
    return readable().index(name) % HANDS


@functools.cache
def opened(hand: int) -> tuple[Disk, ...]:
    """The disks of a hand, in order."""
    paths = [path for n in readable() if hand_of(n) == hand for path in fixtures.disks(n)]
    return resolve_disks([DiskRequest(path=path) for path in paths], untrusted=False)


@functools.cache
def seen(hand: int, choice: EngineChoice) -> Seen:
    """What the engine tells of a hand (one launch)."""
    return run(opened(hand), choice).result


def run(disks: Sequence[Disk], choice: EngineChoice) -> Outcome[Seen]:
    return run_on_engine(look, disks, name="hand", choice=choice, keys=KEYS)


def look(session: Session) -> Seen:
    storage = session.engine.storage()
    kinds = [f.name for f in dataclasses.fields(storage) if f.name != "warnings"]
    space: dict[str, StatVFS | str] = {}
    for filesystem in storage.filesystems:
        if filesystem.mountable:
            space[filesystem.device] = measure(session, filesystem.device)
    guests = [dataclasses.asdict(guest) for guest in inspect_guests(session)]
    return Seen({kind: getattr(storage, kind) for kind in kinds}, guests, space)


def measure(session: Session, device: str) -> StatVFS | str:
    """statvfs, or the name of the refusal: direct may say that it cannot be exact."""
    try:
        return session.engine.mount(device).statvfs()
    except DirectUnsupportedError as error:
        return type(error).__name__


def belongs(name: str, record: Any) -> bool:
    """Whether a storage record lies on the disks of the fixture ``name``."""
    disks = getattr(record, "disks", None)
    if disks is None:
        return False
    return bool(own_disks(name).intersection(disks))


def own_disks(name: str) -> set[int]:
    position = 0
    for other in readable():
        if hand_of(other) != hand_of(name):
            continue
        count = len(fixtures.disks(other))
        if other == name:
            return set(range(position, position + count))
        position += count
    raise AssertionError(name)


@pytest.mark.parametrize("hand", range(HANDS))
def test_volumes(hand: int) -> None:
    direct, appliance = seen(hand, "direct").storage, seen(hand, "appliance").storage
    for kind, found in direct.items():
        assert list(found) == list(appliance[kind]), kind
    assert direct["filesystems"]


@pytest.mark.parametrize("name", readable())
def test_whole_documents(name: str) -> None:
    hand = hand_of(name)
    devices = {
        record.device
        for record in seen(hand, "direct").storage["filesystems"]
        if belongs(name, record)
    }
    assert devices
    documents = [
        [guest for guest in seen(hand, choice).guests if guest["root"] in devices]
        for choice in ("direct", "appliance")
    ]
    assert documents[0] == documents[1]
    if name in fixtures.all_guests():
        assert documents[0], f"no guest found in {name}"


@pytest.mark.parametrize("name", readable())
def test_space(name: str) -> None:
    direct, appliance = seen(hand_of(name), "direct"), seen(hand_of(name), "appliance")
    exact = 0
    for record in direct.storage["filesystems"]:
        if belongs(name, record) and record.mountable:
            ours = direct.space[record.device]
            if isinstance(ours, StatVFS):
                assert ours == appliance.space[record.device], record
                exact += 1
    tags = fixtures.recipe(name).tags
    if tags.isdisjoint({"btrfs", "swap", "ntfs"}) and "bigalloc" not in name:
        assert exact, f"direct computed nothing for {name}"


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    disks = resolve_disks([DiskRequest(path=p) for p in fixtures.disks(name)], untrusted=False)
    with pytest.raises(ImgtoolsError) as caught:
        run(disks, "direct")
    assert type(caught.value) is REFUSED[name], caught.value


@pytest.mark.parametrize("name", [name for name in REFUSED if name.endswith("-unclean")])
def test_auto_reads_what_the_journal_holds(name: str) -> None:
    """What direct alone would read is stale: the fixture's recipe made sure of it."""
    shown = imgtools("cat", "-v", "-a", fixtures.get(name), "/etc/hostname")
    assert shown.code == 0, shown.stderr
    assert "appliance" in shown.stderr
    assert shown.stdout == b"fresh\n"
