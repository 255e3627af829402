"""--firstboot and its kin: scripts in their order, and what will run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize import firstboot
from imgtools.guest.customize.boot_services import RUNNER_TEXT, UNIT_TEXT
from tests.unit.guest.guests import DEBIAN
from tests.unit.guest.writable_tree import MemoryGuest

pytestmark = pytest.mark.unit

SCRIPTS = b"/usr/lib/imgtools-firstboot/scripts"
SYSTEMD = {"sbin/init": "../lib/systemd/systemd", "lib/systemd/systemd": b""}
UNIT = "/etc/systemd/system/imgtools-firstboot.service"
WANTED = b"/etc/systemd/system/multi-user.target.wants/imgtools-firstboot.service"


def test_scripts_wait_in_their_order(tmp_path: Path) -> None:
    script = tmp_path / "Set it up!.sh"
    script.write_bytes(b"#!/bin/sh\necho \xff\n")
    guest = MemoryGuest({**DEBIAN, **SYSTEMD})
    steps = [
        firstboot.parse_command("echo 'one' > /tmp/x"),
        firstboot.parse_script(str(script)),
        firstboot.parse_command("???"),
    ]
    script.unlink()
    for step in steps:
        assert not step.idle(guest)
        assert step.perform(guest)
    assert guest.listdir(SCRIPTS) == [b"0001-echo-one-tmp-x", b"0002-set-it-up-.sh", b"0003-script"]
    assert guest.text(f"{SCRIPTS.decode()}/0001-echo-one-tmp-x") == (
        b"#!/bin/sh\necho 'one' > /tmp/x\n"
    )
    assert guest.text(f"{SCRIPTS.decode()}/0002-set-it-up-.sh") == b"#!/bin/sh\necho \xff\n"
    node = guest.memory.node(SCRIPTS + b"/0001-echo-one-tmp-x")
    assert node.mode & 0o7777 == guest.memory.node(SCRIPTS).mode & 0o7777 == 0o700
    assert guest.text("/usr/lib/imgtools-firstboot/run") == RUNNER_TEXT
    assert guest.text(UNIT) == UNIT_TEXT
    assert guest.readlink(WANTED) == UNIT.encode()
    assert not guest.exists(b"/etc/init.d")
    writes = guest.memory.writes
    assert all(step.idle(guest) and step.perform(guest) == [] for step in steps)
    assert guest.memory.writes == writes


def test_what_is_new_has_the_label_of_its_folder() -> None:
    guest = MemoryGuest({**DEBIAN, **SYSTEMD, "etc/systemd/system/": None})
    labels = {"/usr/lib": b"u:object_r:lib_t:s0", "/etc/systemd/system": b"u:object_r:unit_t:s0"}
    for path, label in labels.items():
        guest.memory.node(path).attributes[b"security.selinux"] = label
    firstboot.parse_command("true").perform(guest)
    for path in f"{SCRIPTS.decode()}/0001-true", "/usr/lib/imgtools-firstboot/run":
        assert guest.memory.node(path).attributes == {b"security.selinux": labels["/usr/lib"]}
    for path in UNIT, WANTED.decode():
        expected = {b"security.selinux": labels["/etc/systemd/system"]}
        assert guest.memory.node(path).attributes == expected


def test_system_v_init() -> None:
    files = {f"etc/rc.d/rc{level}.d/S10network": b"" for level in "0123456"}
    guest = MemoryGuest({
        "etc/redhat-release": b"Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
        "etc/init.d": "rc.d/init.d", "etc/rc.d/init.d/network": b"", "etc/inittab": b"",
        "usr/lib/x": b"", **files,
    })  # fmt: skip
    step = firstboot.parse_command("true")
    step.perform(guest)
    assert guest.text("/etc/rc.d/init.d/imgtools-firstboot") == RUNNER_TEXT
    for level in b"0123456":
        path = b"/etc/rc.d/rc%c.d/S99imgtools-firstboot" % level
        assert guest.exists(path) is (level in b"2345")
        if level in b"2345":
            assert guest.readlink(path) == b"/etc/init.d/imgtools-firstboot"
    assert not guest.exists(UNIT.encode())
    assert step.idle(guest)


def test_openrc() -> None:
    guest = MemoryGuest({
        "etc/os-release": b'ID=alpine\nVERSION_ID=3.20.1\nPRETTY_NAME="Alpine Linux v3.20"\n',
        "sbin/init": "/bin/busybox", "bin/busybox": b"", "sbin/openrc": b"",
        "etc/runlevels/default/crond": "/etc/init.d/crond",
    })  # fmt: skip
    firstboot.parse_command("true").perform(guest)
    assert guest.text("/etc/init.d/imgtools-firstboot").startswith(b"#!/sbin/openrc-run\n")
    link = b"/etc/runlevels/default/imgtools-firstboot"
    assert guest.readlink(link) == b"/etc/init.d/imgtools-firstboot"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Windows/System32/x": b""}, "the guest is Windows"),
        ({**DEBIAN, "sbin/init": "runit-init", "sbin/runit-init": b""}, "init system: runit"),
        (DEBIAN, "init system: unknown"),
    ],
)
def test_guests_that_are_not_supported(files: dict[str, bytes | str | None], message: str) -> None:
    guest, step = MemoryGuest(files), firstboot.parse_command("true")
    for act in step.check, step.idle, step.perform:
        with pytest.raises(GuestOperationError, match=message):
            act(guest)
    assert guest.memory.writes == 0


def test_packages_are_installed_when_the_network_is_up() -> None:
    guest = MemoryGuest({**DEBIAN, **SYSTEMD})
    step = firstboot.parse_install("nginx, curl")
    step.check(guest)
    assert not step.idle(guest)
    step.perform(guest)
    (name,) = guest.listdir(SCRIPTS)
    text = guest.text(f"{SCRIPTS.decode()}/{name.decode()}")
    assert text.startswith(b"#!/bin/sh\nexport DEBIAN_FRONTEND=noninteractive\n")
    assert text.endswith(b" install nginx curl\n")
    assert b"network-online.target" in guest.text(f"{UNIT}.d/network.conf")
    assert step.idle(guest)
    assert step.perform(guest) == []
    for value in "", ",", "-y":
        with pytest.raises(UsageError):
            firstboot.parse_install(value)


def test_bad_values(tmp_path: Path) -> None:
    (tmp_path / "dos").write_bytes(b"#!/bin/sh\r\necho\r\n")
    (tmp_path / "empty").touch()
    for name, message in ("dos", "line ends of Windows"), ("empty", "is empty"), ("no", "be read"):
        with pytest.raises(UsageError, match=message):
            firstboot.parse_script(str(tmp_path / name))
    for command in "", " \n", "a\0b":
        with pytest.raises(UsageError, match="no command"):
            firstboot.parse_command(command)
