"""Every bundled operation, alone: it does what its traces need, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import sysprep
from tests.cli import imgtools
from tests.sysprep_plans import (
    BUNDLED,
    ELSEWHERE,
    OPERATIONS,
    OWN,
    Plan,
    each_alone,
    expected,
    together,
)

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]

UPSTREAM = {  # of virt-sysprep 1.56, True for what is done by default
    "abrt-data": True, "backup-files": True, "bash-history": True, "blkid-tab": True,
    "ca-certificates": False, "crash-data": True, "cron-spool": True, "customize": True,
    "dhcp-client-state": True,
    "dhcp-server-state": True, "dovecot-data": True, "firewall-rules": False,
    "flag-reconfiguration": False, "fs-uuids": False, "ipa-client": True, "kerberos-data": False,
    "kerberos-hostkeytab": True, "logfiles": True, "lvm-system-devices": True, "lvm-uuids": False,
    "machine-id": True,
    "mail-spool": True, "net-hostname": True, "net-hwaddr": True, "net-nmconn": True,
    "pacct-log": True, "package-manager-cache": True, "pam-data": True, "passwd-backups": True,
    "puppet-data-log": True, "rh-subscription-manager": True, "rhn-systemid": True,
    "rpm-db": True, "samba-db-log": True, "script": True, "smolt-uuid": True, "ssh-hostkeys": True,
    "ssh-userdir": True, "sssd-db-log": True, "tmp-files": True, "udev-persistent-net": True,
    "user-account": False, "utmp": True, "yum-uuid": True, "zsh-history": True,
}  # fmt: skip

# On purpose.
OTHER_DEFAULTS = {"lvm-uuids": False}


@pytest.fixture(scope="module")
def plans(image: Image) -> dict[str, Plan]:
    """The plans for the phony Fedora."""
    return each_alone(image(sysprep.NAME))


def test_all_of_upstream_is_there_with_its_default() -> None:
    assert not BUNDLED.failures
    known = {one.name: one.default for one in OPERATIONS}
    assert {name: known.get(name) for name in UPSTREAM} == UPSTREAM
    assert OPERATIONS[-1].name == "machine-id"


def test_all_of_the_installed_virt_sysprep_is_there_with_its_default() -> None:
    words = ["virt-sysprep", "--list-operations"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    theirs = {line.split()[0]: line.split()[1] == "*" for line in lines}
    known = {one.name: one.default for one in OPERATIONS}
    assert {name: known.get(name) for name in theirs} == {**theirs, **OTHER_DEFAULTS}


def test_an_operation_without_a_trace_has_a_test() -> None:
    tests = Path(__file__).parents[1]
    for name, file in ELSEWHERE.items():
        assert name in {one.name for one in OPERATIONS}
        assert name in (tests / file).read_text(encoding="utf-8")


PLANNED = [one.name for one in OPERATIONS if one.name in OWN["fedora"] or one.name not in ELSEWHERE]


@pytest.mark.parametrize("name", PLANNED)
def test_each_alone_takes_its_traces_and_nothing_else(name: str, plans: dict[str, Plan]) -> None:
    wanted = expected(sysprep.traces("fedora")).get(name, set()) | OWN["fedora"].get(name, set())
    assert plans[name] == wanted
    assert wanted


def test_together_nothing_is_named_twice(image: Image, plans: dict[str, Plan]) -> None:
    both = together(image(sysprep.NAME))
    removals = [path for plan in both.values() for verb, path in plan if verb == "removed"]
    assert len(removals) == len(set(removals))
    defaults = {one.name for one in OPERATIONS if one.default}
    assert {one for plan in both.values() for one in plan} == {
        one for name in defaults for one in plans[name]
    }


def test_every_heading_is_one_line_without_a_full_stop() -> None:
    for one in OPERATIONS:
        assert 10 < len(one.heading) < 70, one.name
        assert not one.heading.endswith("."), one.name
        assert one.description.endswith("."), one.name
        if one.name != "customize":  # whose options are those of a command
            assert all(
                option.name in option.help or one.name in option.help for option in one.options
            )


def test_the_document_lists_every_operation_with_its_default() -> None:
    text = Path(__file__).parents[2].joinpath("docs/operations.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \| (on|off) \|", text, re.MULTILINE)
    assert listed == sorted((one.name, "on" if one.default else "off") for one in OPERATIONS)


def test_authorized_keys_go_only_when_asked(image: Image, plans: dict[str, Plan]) -> None:
    asked = each_alone(image(sysprep.NAME), remove_authorized_keys=True)
    assert asked["ssh-userdir"] == {
        ("removed", "/root/.ssh"), ("removed", "/home/directory/.ssh"),
    }  # fmt: skip
    assert not any("authorized_keys" in path for _, path in plans["ssh-userdir"])


def test_a_file_of_several_names_frees_its_bytes_with_the_last(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk.img"
    for path, size in {
        "var/tmp/all/one": 8192,
        "var/tmp/some/one": 4096,
        "etc/os-release": 1,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x" * size)
    (root / "bin").mkdir()
    (root / "var/tmp/all/two").hardlink_to(root / "var/tmp/all/one")
    (root / "etc/kept").hardlink_to(root / "var/tmp/some/one")
    subprocess.run(["truncate", "-s", "8M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-d", root, disk], check=True)
    words = ("--format", "raw", "-a", disk, "-m", "/dev/sda", "--enable", "tmp-files")
    done = imgtools("sysprep", "-n", "--json", *words)
    assert done.code == 0, done.stderr
    [operation] = json.loads(done.text)["result"]["operations"]
    # the folders' own blocks, and the file none of whose names stays
    assert {one["path"]: one["freed"] for one in operation["actions"]} == {
        "/var/tmp/all": 1024 + 8192,
        "/var/tmp/some": 1024,
    }
    assert operation["freed"] == 2 * 1024 + 8192
