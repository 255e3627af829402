"""The bundled operations on a real Debian in which every one of them has something to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import sysprep
from fixtures import tree as fixed
from fixtures.tree import make_tar
from tests.appliance.scratch import change, overlay_of
from tests.appliance.small import digest
from tests.cli import imgtools
from tests.sysprep_plans import (
    ELSEWHERE,
    OPERATIONS,
    OTHERS,
    OWN,
    SSH_UNIT,
    SSH_WANTED,
    each_alone,
    on_tree,
    resolved,
    state,
)

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]


def test_a_fresh_debian_has_little(image: Image) -> None:
    plans = each_alone(image("debian-plain"))
    found = {name: plan for name, plan in plans.items() if plan and name not in ELSEWHERE}
    assert found == OWN["debian"]


@pytest.mark.parametrize("guest", ["debian", "fedora"])
def test_all_defaults_in_one_go_and_then_the_rest(
    guest: str, planted: Path, image: Image, tmp_path: Path
) -> None:
    base = planted if guest == "debian" else image(sysprep.NAME)
    disk = overlay_of(base, tmp_path / "disk.qcow2")
    known = [one for one in OPERATIONS if one.name not in {*OTHERS[guest], *ELSEWHERE}]
    defaults = [one.name for one in known if one.default]
    rest = [one.name for one in known if not one.default]
    run_and_look(disk, guest, defaults, ())
    # nothing that clones would clash by is left
    done = imgtools("sysprep", "--check", "--json", "-a", disk)
    [looked] = json.loads(done.text)["result"]["guests"]
    clashes = {one["path"] for one in looked["identities"] if one["severity"] == "clash"}
    assert (done.code, clashes) == (0, set()), done
    run_and_look(disk, guest, rest, ("--operations", ",".join(rest)))


def run_and_look(disk: Path, guest: str, names: list[str], words: tuple[str, ...]) -> None:
    """Operations do what a dry run lists, no less and no more, and no more the second time."""
    before, old = state(disk), digest(disk)
    dry = imgtools("sysprep", "-n", "--json", "-a", disk, *words)
    assert (dry.code, digest(disk)) == (0, old), dry
    listed = json.loads(dry.text)["result"]["operations"]
    actions = on_tree(
        disk,
        lambda tree: {
            (one["verb"], resolved(tree, one["path"])) for each in listed for one in each["actions"]
        },
    )
    tops = tuple(f"{path}/" for verb, path in actions if verb == "removed")

    result = json.loads(change("sysprep", "-a", disk, "--json", *words).text)["result"]
    assert result["committed"]
    assert result["operations"] == listed
    assert {one["name"] for one in listed if one["actions"] or one["notes"]} == set(names)

    after = state(disk)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in changed if not path.startswith(tops)} == {path for _, path in actions}
    for verb, path in actions:
        assert (path in after) == (verb != "removed"), path
    assert_contents(disk, guest, names)

    again = imgtools("sysprep", "-a", disk, "--json", *words)
    assert (again.code, again.stderr) == (0, "")
    assert not any(one["actions"] for one in json.loads(again.text)["result"]["operations"])
    assert state(disk) == after


def assert_contents(disk: Path, guest: str, names: list[str]) -> None:
    """Edited files are as they should be; the machine has no ID, and what makes its keys."""
    after = {
        f"/{one.entry.path.decode()}": one.after
        for one in sysprep.traces(guest)
        if one.after is not None and {name for name, _, _ in one.wanted} & set(names)
    }
    after["/etc/machine-id"] = b"uninitialized\n"
    found = on_tree(
        disk, lambda tree: {path: tree.read(path.encode(), limit=1 << 20) for path in after}
    )
    assert found == after
    if guest != "debian" or "ssh-hostkeys" not in names:
        return
    unit, target = on_tree(
        disk,
        lambda tree: (tree.read(SSH_UNIT.encode(), limit=4096), tree.readlink(SSH_WANTED.encode())),
    )
    assert b"ExecStart=/usr/bin/ssh-keygen -A\n" in unit
    assert b"Before=ssh.service\n" in unit
    assert unit.count(b"ConditionPathExists=|!/etc/ssh/ssh_host_") == 3
    assert target == SSH_UNIT.encode()


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


def test_the_store_of_authorities_is_made_anew_by_the_guest(image: Image, tmp_path: Path) -> None:
    """By a program in its place, as the small guest has no such package."""
    disk = overlay_of(image("debian-plain"), tmp_path / "disk.qcow2")
    certificate = "/usr/local/share/ca-certificates/ipa-ca.crt"
    program = "/usr/sbin/update-ca-certificates"
    text = f"#!/bin/sh\n[ -e {certificate} ] || id -u > /etc/ssl/certs/made\n"
    made = (fixed.file(certificate[1:], "x"), fixed.file(program[1:], text, 0o755))
    make_tar(tmp_path / "traces.tar", (*made, fixed.file("etc/ssl/certs/made", "")))
    change("tar-in", "-a", disk, tmp_path / "traces.tar", "/")
    done = change("sysprep", "-a", disk, "--enable", "ipa-client", "--json")
    actions = json.loads(done.text)["result"]["operations"][0]["actions"]
    found = [(one["verb"], one["path"]) for one in actions]
    assert found == [("removed", certificate), ("ran", program)]
    assert imgtools("cat", "-a", disk, "/etc/ssl/certs/made").text == "0\n"
    assert "nothing to do" in imgtools("sysprep", "-a", disk, "--enable", "ipa-client").stderr
