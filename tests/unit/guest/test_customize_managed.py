"""--selinux-relabel, --sm-* and the table: what is known before a program of the guest runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize import rhsm, selinux
from imgtools.guest.customize.base import Custom, Setting
from imgtools.guest.customize.identity_options import IDENTITY
from tests.unit.guest.guests import DEBIAN
from tests.unit.guest.writable_tree import MemoryGuest

pytestmark = pytest.mark.unit

RHEL: dict[str, bytes | str | None] = {
    "etc/os-release": b'ID=rhel\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4"\n',
    "etc/passwd": b"",
}
CONTEXTS = "etc/selinux/targeted/contexts/files/file_contexts"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (DEBIAN, "the guest has no SELinux"),
        ({**RHEL, "etc/selinux/config": b"SELINUXTYPE=targeted\n"}, "no SELinux policy"),
        ({**RHEL, "etc/selinux/config": b"SELINUXTYPE=../../x\n"}, "no SELinux policy"),
        ({"Windows/System32/x": b""}, "the guest is Windows"),
    ],
)
def test_guests_without_selinux(files: dict[str, bytes | str | None], message: str) -> None:
    guest = MemoryGuest(files)
    for act in selinux.parse("").idle, selinux.parse("").perform:
        with pytest.raises(GuestOperationError, match=message):
            act(guest)
    assert guest.memory.writes == 0


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (b"SELINUX=enforcing\n", "it has no setfiles"),
        (b"#SELINUX=enforcing\nSELINUX=disabled\n", "SELinux is disabled"),
    ],
)
def test_a_relabel_that_cannot_be_now_is_at_the_next_boot(config: bytes, why: str) -> None:
    guest = MemoryGuest({**RHEL, "etc/selinux/config": config, CONTEXTS: b"/.* u:object_r:t\n"})
    step = selinux.parse("")
    assert not step.idle(guest)
    (done,) = step.perform(guest)
    assert done.path == b"/.autorelabel"
    assert why in done.detail
    assert guest.text("/.autorelabel") == b""
    assert step.perform(guest) == []


def test_credentials(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"top secret\n")
    found = rhsm.parse_credentials(f"me@example.com:file:{file}")
    file.unlink()
    step = rhsm.with_credentials(
        rhsm.parse_register(""), {"sm-credentials": f"me@example.com:file:{file}"}
    )
    assert isinstance(step, rhsm.Manage)
    assert step.credentials == found
    assert found.password == b"top secret"
    assert "secret" not in repr(step)
    assert rhsm.parse_credentials("me:password:a:b").password == b"a:b"
    for value in "", "me", "me:secret", "me:password:", ":password:secret", "me:file:/no/such":
        with pytest.raises(UsageError) as caught:
            rhsm.parse_credentials(value)
        assert "secret" not in f"{caught.value}{caught.value.hint}"
    with pytest.raises(UsageError, match="needs credentials"):
        rhsm.with_credentials(rhsm.parse_register(""), {})


def test_pools(tmp_path: Path) -> None:
    (tmp_path / "pool").write_text("8a85f9\n")
    assert rhsm.parse_attach("auto").words == ("attach", "--auto")
    assert rhsm.parse_attach("pool:8a85").words == ("attach", "--pool=8a85")
    assert rhsm.parse_attach(f"file:{tmp_path / 'pool'}").words == ("attach", "--pool=8a85f9")
    for value in "", "pool:", "8a85", "file:":
        with pytest.raises(UsageError, match="no pool"):
            rhsm.parse_attach(value)


def test_guests_without_subscription_manager() -> None:
    for files, hint in (DEBIAN, "for RHEL and its kin"), (RHEL, "install it"):
        for step in rhsm.parse_attach("auto"), rhsm.parse_remove(""), rhsm.parse_unregister(""):
            with pytest.raises(GuestOperationError, match="has no subscription-manager") as caught:
                step.idle(MemoryGuest(files))
            assert hint in (caught.value.hint or "")


def test_a_guest_that_is_not_registered_need_not_be_unregistered() -> None:
    guest = MemoryGuest({**RHEL, "usr/sbin/subscription-manager": b"#!/bin/sh\n"})
    assert rhsm.parse_unregister("").idle(guest)
    assert rhsm.parse_unregister("").perform(guest) == []
    assert not rhsm.parse_remove("").idle(guest)


def test_the_rows() -> None:
    names = [row.name for row in IDENTITY]
    assert len(set(names)) == len(names)
    assert {row.name for row in IDENTITY if isinstance(row, Setting)} == {
        "password-crypto",
        "sm-credentials",
    }
    assert [row.name for row in IDENTITY if isinstance(row, Custom) and row.last] == [
        "selinux-relabel"
    ]
    assert all(row.help.endswith((".", "…")) for row in IDENTITY)
