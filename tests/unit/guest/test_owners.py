"""Owners by the guest's own names, and modes."""

from __future__ import annotations

import stat

import pytest

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.owners import new_mode, parse_owner
from imgtools.guest.tree import GuestTree, Mount
from tests.unit.memory_tree import MemoryTree

pytestmark = pytest.mark.unit

PASSWD = (
    b"root:x:0:0:root:/root:/bin/bash\n"
    b"broken line\n"
    b"nonumber:x:abc:5::/:\n"
    b"huge:x:" + b"9" * 5000 + b":5::/:\n"
    b"minusone:x:4294967295:5::/:\n"
    b"alice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
    b"alice:x:2000:2000:the second is not used::\n"
    b"1234:x:77:78:a number for a name::\n"
    b"badgroup:x:1500:x:::\n"
    b"b\xe9b:x:1600:1600:::\n"
)
GROUP = b"root:x:0:\nstaff:x:50:alice\n4321:x:51:\n"


def guest(passwd: bytes = PASSWD, group: bytes = GROUP) -> GuestTree:
    tree = MemoryTree({b"etc": {b"passwd": passwd, b"group": group}})
    return GuestTree([Mount(b"/", "/dev/sda1", tree)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alice", (1000, None)),
        ("alice:", (1000, 1001)),
        ("alice:staff", (1000, 50)),
        (":staff", (None, 50)),
        ("0:0", (0, 0)),
        ("1000:", (1000, 1001)),
        ("4711", (4711, None)),
        ("4711:", (4711, None)),
        ("4711:4712", (4711, 4712)),
        ("1234", (77, None)),  # a name comes before a number
        (":4321", (None, 51)),
        ("badgroup:", (1500, None)),
        ("4294967294", (4294967294, None)),
        (b"b\xe9b:".decode("utf-8", "surrogateescape"), (1600, 1600)),
    ],
)
def test_owners(text: str, found: tuple[int | None, int | None]) -> None:
    assert parse_owner(guest(), text) == found


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("", UsageError, "names no owner"),
        (":", UsageError, "names no owner"),
        ("nobody-knows", GuestOperationError, "the guest has no such user"),
        (":nobody-knows", GuestOperationError, "the guest has no such group"),
        ("nonumber", GuestOperationError, "no such user"),
        ("huge", GuestOperationError, "no such user"),
        ("minusone", GuestOperationError, "no such user"),
        ("4294967295", UsageError, "no such user number"),
        (":9999999999", UsageError, "no such group number"),
        ("-1", GuestOperationError, "no such user"),
    ],
)
def test_owners_that_are_none(text: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        parse_owner(guest(), text)


def test_a_guest_without_users_knows_numbers() -> None:
    empty = GuestTree([Mount(b"/", "/dev/sda1", MemoryTree({b"etc": {}}))])
    assert parse_owner(empty, "33:33") == (33, 33)
    with pytest.raises(GuestOperationError, match="the guest has no such user"):
        parse_owner(empty, "root")


FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("text", "mode", "found"),
    [
        ("0644", FILE | 0o7777, 0o644),
        ("7777", FILE, 0o7777),
        ("00755", FOLDER | 0o2775, 0o755),
        ("755", FOLDER | 0o2775, 0o755),  # octal sets all bits, also of a directory
        ("u+x", FILE | 0o644, 0o744),
        ("+x", FILE | 0o644, 0o755),
        ("go-rwx", FILE | 0o4755, 0o4700),
        ("u=rw,go=r", FILE | 0o777, 0o644),
        ("a=", FILE | 0o7777, 0),
        ("u+s", FILE | 0o755, 0o4755),
        ("g+s", FILE | 0o755, 0o2755),
        ("+t", FOLDER | 0o777, 0o1777),
        ("a+X", FILE | 0o644, 0o644),
        ("a+X", FILE | 0o744, 0o755),
        ("a+X", FOLDER | 0o644, 0o755),
        ("g=u", FILE | 0o640, 0o660),
        ("o=g-w", FILE | 0o664, 0o664 & ~0o2),
        ("u+rw-x", FILE | 0o100, 0o600),
        ("g=rx", FOLDER | 0o2770, 0o2750),  # chmod(1) keeps it on a directory
        ("g=rx", FILE | 0o2770, 0o750),
    ],
)
def test_modes(text: str, mode: int, found: int) -> None:
    assert new_mode(text, mode) == found


@pytest.mark.parametrize("text", ["", "8", "17777", "u", "u+q", "u+x,", "x+u", "0o644", "u+gx"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no file mode"):
        new_mode(text, FILE)
