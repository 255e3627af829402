"""Owners and modes as users write them: ``alice:staff``, ``1000:``, ``0644``, ``u+x,go-w``."""

from __future__ import annotations

import re
import stat as _stat

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.tree import GuestTree

MAX_DATABASE = 16 << 20
_MAX_ID = 2**32 - 2  # (uid_t) -1 means "leave it"

_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


def parse_owner(tree: GuestTree, text: str) -> tuple[int | None, int | None]:
    """(uid, gid) of ``USER[:GROUP]``, by the guest's own /etc/passwd and /etc/group.

    None for a part that is left out; ``USER:`` means the user's own group.  Raises
    GuestOperationError for a name that the guest does not know.
    """
    user, colon, group = text.partition(":")
    if not user and not group:
        raise UsageError(f"{text!r}: names no owner", hint="USER[:GROUP] or :GROUP")
    uid = own_group = None
    if user:
        uid, own_group = _find(tree, b"/etc/passwd", user, "user")
    if group:
        return uid, _find(tree, b"/etc/group", group, "group")[0]
    return uid, own_group if colon else None


def _find(tree: GuestTree, database: bytes, name: str, what: str) -> tuple[int, int | None]:
    """The number of a name, and for a user its group's."""
    number = int(name) if re.fullmatch(r"[0-9]{1,10}", name) else None
    if number is not None and number > _MAX_ID:
        raise UsageError(f"{name}: no such {what} number")
    wanted = name.encode("utf-8", errors="surrogateescape")
    for line in _lines(tree, database):
        fields = line.split(b":")
        if len(fields) < 4 or not fields[2].isdigit():
            continue
        if fields[0] == wanted or (number is not None and int(fields[2]) == number):
            group = int(fields[3]) if what == "user" and fields[3].isdigit() else None
            return int(fields[2]), group
    if number is None:
        raise GuestOperationError(
            f"{name}: the guest has no such {what}", hint=f"a number works for any {what}"
        )
    return number, None


def _lines(tree: GuestTree, database: bytes) -> list[bytes]:
    try:
        return tree.read(database, limit=MAX_DATABASE).splitlines()
    except GuestOperationError:
        return []


def new_mode(text: str, mode: int) -> int:
    """The permission bits that ``text`` (octal, or chmod(1)'s symbols) makes of ``mode``.

    ``mode`` is a whole st_mode, since ``X`` depends on the type.  Raises UsageError.
    """
    if re.fullmatch(r"[0-7]{1,5}", text):
        value = int(text, 8)
        if value > 0o7777:
            raise UsageError(f"{text}: no file mode", hint="at most 7777")
        return value
    bits = _stat.S_IMODE(mode)
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise UsageError(f"{text}: no file mode", hint="octal as 0644, or as u+x,go-w")
        bits = _applied(found, bits, mode)
    return bits


def _applied(found: re.Match[str], bits: int, mode: int) -> int:
    who = 0
    for letter in found[1] or "a":
        who |= _WHO[letter]
    chosen = 0
    for letter in found[3]:
        if letter == "X":
            letter = "x" if _stat.S_ISDIR(mode) or bits & 0o111 else ""  # noqa: PLW2901
        chosen |= _BITS.get(letter, 0)
    if found[2] == "+":
        return bits | (chosen & who)
    if found[2] == "-":
        return bits & ~(chosen & who)
    return (bits & ~who) | (chosen & who)
