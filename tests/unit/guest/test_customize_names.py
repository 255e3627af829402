"""--hostname and --timezone, where each distribution keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize import hostname, timezone
from imgtools.guest.customize.hostname import renamed_hosts
from tests.unit.guest.guests import DEBIAN
from tests.unit.guest.writable_tree import MemoryGuest

pytestmark = pytest.mark.unit

SYSTEMD = {"sbin/init": "../lib/systemd/systemd", "lib/systemd/systemd": b""}


def release(identity: str, version: str) -> dict[str, bytes | str | None]:
    text = f'ID={identity}\nVERSION_ID="{version}"\nPRETTY_NAME="{identity} {version}"\n'
    return {"etc/os-release": text.encode(), "etc/passwd": b""}


RHEL6: dict[str, bytes | str | None] = {
    "etc/redhat-release": b"Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
    "etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=old.example.com\nGATEWAY=10.0.0.1\n",
}


def test_debian_and_its_hosts() -> None:
    hosts = b"127.0.0.1\tlocalhost\n127.0.1.1\tlemon.lan  lemon # lemon\n::1 localhost lemons\n"
    guest = MemoryGuest({**DEBIAN, "etc/hostname": b"lemon.lan\n", "etc/hosts": hosts})
    step = hostname.parse("lime.example.com")
    assert not step.idle(guest)
    assert [done.path for done in step.perform(guest)] == [b"/etc/hostname", b"/etc/hosts"]
    assert guest.text("/etc/hostname") == b"lime.example.com\n"
    assert guest.text("/etc/hosts") == (
        b"127.0.0.1\tlocalhost\n127.0.1.1\tlime.example.com  lime # lemon\n::1 localhost lemons\n"
    )
    assert step.idle(guest)
    assert step.perform(guest) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({**release("fedora", "40"), **SYSTEMD}, {"etc/hostname": b"lime\n"}),
        (release("rhel", "9.4"), {"etc/hostname": b"lime\n"}),
        ({**release("amzn", "2023"), **SYSTEMD}, {"etc/hostname": b"lime\n"}),
        (
            {**release("rocky", "9.1"), "etc/machine-info": b"CHASSIS=vm\nPRETTY_HOSTNAME=old\n"},
            {"etc/hostname": b"lime\n", "etc/machine-info": b"CHASSIS=vm\nPRETTY_HOSTNAME=lime\n"},
        ),
        (
            RHEL6,
            {"etc/sysconfig/network": b"NETWORKING=yes\nHOSTNAME=lime\nGATEWAY=10.0.0.1\n"},
        ),
        (release("fedora", "14"), {"etc/sysconfig/network": b"HOSTNAME=lime\n"}),
        (release("sles", "11.4"), {"etc/HOSTNAME": b"lime\n"}),
        (
            {
                **release("sles", "15.5"),
                **SYSTEMD,
                "etc/HOSTNAME": "hostname",
                "etc/hostname": b"a",
            },
            {"etc/hostname": b"lime\n"},
        ),
        ({**release("opensuse-leap", "15.5"), **SYSTEMD}, {"etc/hostname": b"lime\n"}),
        (release("alpine", "3.20"), {"etc/hostname": b"lime\n"}),
        (release("gentoo", "2.15"), {"etc/conf.d/hostname": b'hostname="lime"\n'}),
        ({**release("other", "1"), **SYSTEMD}, {"etc/hostname": b"lime\n"}),
    ],
)
def test_each_distribution(
    files: dict[str, bytes | str | None], expected: dict[str, bytes]
) -> None:
    guest = MemoryGuest({"etc/conf.d/x": b"", "etc/sysconfig/x": b"", **files})
    step = hostname.parse("lime")
    assert step.perform(guest)
    assert {path: guest.text(f"/{path}") for path in expected} == expected
    others = {"etc/hostname", "etc/HOSTNAME", "etc/sysconfig/network"} - set(expected) - set(files)
    assert not [path for path in others if guest.exists(f"/{path}".encode())]
    assert step.idle(guest)


def test_a_distribution_nobody_knows_is_an_error() -> None:
    guest = MemoryGuest(release("other", "1"))
    with pytest.raises(GuestOperationError, match="where other 1 keeps its name is not known"):
        hostname.parse("lime").idle(guest)
    assert guest.memory.writes == 0


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "-a", "a-", "a b", "a/b", "a\nb", "ä", "a" * 64,
             "a." * 32 + "a", "$(id)"]
)  # fmt: skip
def test_bad_host_names(name: str) -> None:
    with pytest.raises(UsageError, match="is no host name"):
        hostname.parse(name)


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        (b"old", b"new.lan", b"127.0.1.1 old\n", b"127.0.1.1 new.lan new\n"),
        (b"old.lan", b"new", b"127.0.1.1 old.lan old other\n", b"127.0.1.1 new other\n"),
        (b"old.lan", b"new.lan", b"  127.0.1.1\told.lan\told", b"  127.0.1.1\tnew.lan\tnew"),
        (b"old", b"new", b"#127.0.1.1 old\nold old old.lan", b"#127.0.1.1 old\nold new old.lan"),
        (b"localhost", b"new", b"127.0.0.1 localhost\n", b"127.0.0.1 localhost\n"),
        (b"localhost.localdomain", b"new", b"::1 localhost.localdomain localhost",
         b"::1 localhost.localdomain localhost"),
        (b"", b"new.lan", b"127.0.1.1 unassigned-hostname.unassigned-domain unassigned-hostname\n",
         b"127.0.1.1 new.lan new\n"),
        (b"a.b", b"c.d", b"1.1.1.1 x x a a.b\n", b"1.1.1.1 x x c c.d\n"),
    ],
)  # fmt: skip
def test_hosts(old: bytes, new: bytes, before: bytes, after: bytes) -> None:
    assert renamed_hosts(before, old, new) == after
    assert renamed_hosts(after, new, new) == after


@given(text=st.binary(max_size=300))
def test_hosts_of_other_machines_stay_byte_for_byte(text: bytes) -> None:
    if b"unassigned" not in text:
        assert renamed_hosts(text, b"not-in-there.example.com", b"new") == text


# --- time zones ----------------------------------------------------------------------------------

ZONES: dict[str, bytes | str | None] = {
    "usr/share/zoneinfo/Europe/London": b"TZif2...",
    "usr/share/zoneinfo/Europe/Berlin": b"TZif2...",
    "usr/share/zoneinfo/UTC": b"TZif2...",
    "usr/share/zoneinfo/zone.tab": b"# text",
    "usr/share/zoneinfo/Text": b"# text",
}


@pytest.mark.parametrize("before", ["/usr/share/zoneinfo/UTC", b"TZif2 a copy", ""])
def test_a_time_zone(before: str | bytes) -> None:
    there = {"etc/localtime": before} if before else {}
    guest = MemoryGuest({**DEBIAN, **ZONES, **there, "etc/timezone": b"Etc/UTC\n"})
    if before:
        label = guest.memory.node("/etc/localtime").attributes
        label[b"security.selinux"] = b"system_u:object_r:locale_t:s0"
    step = timezone.parse("Europe/London")
    assert not step.idle(guest)
    step.perform(guest)
    assert guest.readlink(b"/etc/localtime") == b"../usr/share/zoneinfo/Europe/London"
    assert guest.text("/etc/timezone") == b"Europe/London\n"
    if before:
        assert guest.memory.node("/etc/localtime").attributes == label
    assert step.idle(guest)
    assert step.perform(guest) == []


def test_an_absolute_link_to_the_zone_is_fine() -> None:
    link = "/usr/share/zoneinfo/Europe/London"
    guest = MemoryGuest({**DEBIAN, **ZONES, "etc/localtime": link})
    assert timezone.parse("Europe/London").idle(guest)
    assert not guest.exists(b"/etc/timezone")


def test_the_clock_of_older_distributions() -> None:
    guest = MemoryGuest(
        {**RHEL6, **ZONES, "etc/sysconfig/clock": b'ZONE="UTC"\nUTC=true\nTIMEZONE="UTC"\n'}
    )
    step = timezone.parse("Europe/London")
    step.perform(guest)
    text = b'ZONE="Europe/London"\nUTC=true\nTIMEZONE="Europe/London"\n'
    assert guest.text("/etc/sysconfig/clock") == text
    assert step.idle(guest)


@pytest.mark.parametrize("zone", ["", "/etc/passwd", "../x", "Europe/../UTC", "a b", "a\n", "a//b"])
def test_bad_time_zones(zone: str) -> None:
    with pytest.raises(UsageError, match="is no time zone"):
        timezone.parse(zone)


def test_time_zones_that_the_guest_does_not_know() -> None:
    guest = MemoryGuest({**DEBIAN, **ZONES})
    for zone, message in (
        ("Europe/Lodnon", r"no time zone Europe/Lodnon: did you mean Europe/London"),
        ("Europe", "no time zone Europe"),
        ("Text", "no time zone Text"),
    ):
        with pytest.raises(GuestOperationError, match=message):
            timezone.parse(zone).idle(guest)
    with pytest.raises(GuestOperationError, match="has no time zones") as caught:
        timezone.parse("UTC").perform(MemoryGuest(DEBIAN))
    assert "tzdata" in (caught.value.hint or "")
    assert guest.memory.writes == 0
