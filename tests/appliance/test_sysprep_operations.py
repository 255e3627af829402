"""The bundled operations on a real Debian in which every one of them has something to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import sysprep
from fixtures.tree import make_tar
from tests.appliance.scratch import change, overlay_of
from tests.cli import imgtools
from tests.sysprep_plans import OPERATIONS, Plan, each_alone, expected, on_tree, state

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]

UNIT = "/etc/systemd/system/imgtools-ssh-keys.service"
WANTED = f"/etc/systemd/system/multi-user.target.wants/{UNIT.rpartition('/')[2]}"
# What a fresh Debian has of its own.
FRESH: dict[str, Plan] = {
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
        ("written", UNIT),
        ("made", WANTED),
    },
    "user-account": {
        *(
            ("edited", f"/etc/{name}")
            for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")
        ),
        ("removed", "/home/alice"),
    },
}
# Not for this family, whose own package or nobody does that.
OTHERS = {"net-hostname", "net-hwaddr", "net-nmconn"}
# What the defaults leave on purpose: two operations are off, interfaces would not be found
# without their MAC address or pretend to have one, and no program of Debian reads ifcfg files.
LEFT = {
    "/var/lib/snapd/state.json",
    "/etc/pki/tls/private/web.key",
    "/etc/netplan/01-lan.yaml",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/systemd/network/10-lan.network",
    "/etc/systemd/network/20-wan.network",
}


@pytest.fixture(scope="module")
def planted(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay of the real Debian with all traces."""
    place = tmp_path_factory.mktemp("planted")
    make_tar(place / "traces.tar", sysprep.entries("debian"))
    disk = overlay_of(image("debian-plain"), place / "disk.qcow2")
    change("tar-in", "-a", disk, place / "traces.tar", "/")
    return disk


def test_a_fresh_debian_has_little(image: Image) -> None:
    plans = each_alone(image("debian-plain"))
    assert {name: plan for name, plan in plans.items() if plan} == FRESH


def test_each_alone_takes_its_traces_and_nothing_else(planted: Path) -> None:
    plans = each_alone(planted)
    wanted = expected(sysprep.traces("debian"))
    for one in OPERATIONS:
        both = wanted.get(one.name, set()) | FRESH.get(one.name, set())
        assert plans[one.name] == both, one.name
        assert bool(both) != (one.name in OTHERS), one.name


def test_all_defaults_in_one_go_and_then_again(planted: Path) -> None:
    before = state(planted)
    wanted = expected(sysprep.traces("debian"))
    names = [one.name for one in OPERATIONS if one.default]
    actions = {one for name in names for one in wanted.get(name, set()) | FRESH.get(name, set())}

    assert change_all(planted) == {name for name in names if name not in OTHERS}

    after = state(planted)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    tops = tuple(f"{path}/" for verb, path in actions if verb == "removed")
    assert {path for path in changed if not path.startswith(tops)} == {path for _, path in actions}
    for verb, path in actions:
        assert (path in after) == (verb != "removed"), path
    assert_contents(planted, names)

    again = imgtools("sysprep", "-a", planted, "--json")
    assert (again.code, again.stderr) == (0, "")
    result = json.loads(again.text)["result"]
    assert not any(one["actions"] for one in result["operations"])
    assert state(planted) == after
    assert clashes(planted) == LEFT


def clashes(disk: Path) -> set[str]:
    """The files by which clones would still clash."""
    done = imgtools("sysprep", "--check", "--json", "-a", disk)
    [guest] = json.loads(done.text)["result"]["guests"]
    return {one["path"] for one in guest["identities"] if one["severity"] == "clash"}


def change_all(disk: Path) -> set[str]:
    """Run `imgtools sysprep`; the names of the operations that did something."""
    done = change("sysprep", "-a", disk, "--json")
    result = json.loads(done.text)["result"]
    assert result["committed"]
    return {one["name"] for one in result["operations"] if one["actions"]}


def assert_contents(disk: Path, names: list[str]) -> None:
    """Edited files are as they should be; the machine has no ID, and what makes its keys."""
    after = {
        f"/{one.entry.path.decode()}": one.after
        for one in sysprep.traces("debian")
        if one.after is not None and {name for name, _, _ in one.wanted} & set(names)
    }
    after["/etc/machine-id"] = b"uninitialized\n"
    found = on_tree(
        disk, lambda tree: {path: tree.read(path.encode(), limit=1 << 20) for path in after}
    )
    assert found == after
    unit, target = on_tree(
        disk, lambda tree: (tree.read(UNIT.encode(), limit=4096), tree.readlink(WANTED.encode()))
    )
    assert b"ExecStart=/usr/bin/ssh-keygen -A\n" in unit
    assert b"Before=ssh.service\n" in unit
    assert unit.count(b"ConditionPathExists=|!/etc/ssh/ssh_host_") == 3
    assert target == UNIT.encode()


def test_one_account_of_two(image: Image, tmp_path: Path) -> None:
    disk = overlay_of(image("debian-plain"), tmp_path / "disk.qcow2")
    only = ("--enable", "user-account", "-a", disk)
    kept = imgtools("sysprep", *only, "--keep-user-accounts", "alice")
    assert (kept.code, "nothing to do" in kept.stderr) == (0, True)
    system = imgtools("sysprep", *only, "--remove-user-accounts", "daemon,alice")
    assert system.code == 6
    assert "daemon: has UID 1; only accounts with UIDs from 1000 to 60000" in system.stderr
    change("sysprep", "-q", *only, "--remove-user-accounts", "alice")
    names = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
    for name in names:
        before = imgtools("cat", "-a", image("debian-plain"), f"/etc/{name}").text
        after = imgtools("cat", "-a", disk, f"/etc/{name}").text
        assert "alice" in before
        assert after == "".join(
            line for line in before.splitlines(keepends=True) if not line.startswith("alice:")
        )
    assert imgtools("ls", "-a", disk, "/home").lines == []
