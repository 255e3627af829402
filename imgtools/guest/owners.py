"""Owners and modes as users write them: ``alice:staff``, ``1000:``, ``0644``, ``u+x,go-w``."""

from __future__ import annotations

import re
import stat as _stat

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.tree import GuestTree

MAX_DATABASE = 16 << 20
_MAX_ID = 2**32 - 2  # (uid_t) -1 means "leave it"

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_SHIFT = {"u": 6, "g": 3, "o": 0}
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
        if len(fields) < 4 or (found := _id(fields[2])) is None:
            continue
        if fields[0] == wanted or (number is not None and found == number):
            return found, _id(fields[3]) if what == "user" else None
    if number is None:
        raise GuestOperationError(
            f"{name}: the guest has no such {what}", hint=f"a number works for any {what}"
        )
    return number, None


def _id(digits: bytes) -> int | None:
    """A number of the guest's database, None for what is none."""
    known = digits.isdigit() and len(digits) <= 10 and int(digits) <= _MAX_ID
    return int(digits) if known else None


def _lines(tree: GuestTree, database: bytes) -> list[bytes]:
    try:
        return tree.read(database, limit=MAX_DATABASE).splitlines()
    except GuestOperationError:
        return []


def new_mode(text: str, mode: int) -> int:
    """The permission bits that ``text`` (octal, or chmod(1)'s symbols) makes of ``mode``.

    ``mode`` is a whole st_mode, since ``X`` and ``=`` depend on the type.  Octal sets all twelve
    bits, also of a directory; symbols know no umask.  Raises UsageError.
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
        who = 0
        for letter in found[1] or "a":
            who |= _WHO[letter]
        for operator, what in _ACTION.findall(found[2]):
            bits = _applied(operator, what, who, bits, _stat.S_ISDIR(mode))
    return bits


def _applied(operator: str, what: str, who: int, bits: int, is_directory: bool) -> int:
    chosen = _chosen(what, bits, is_directory) & who
    if operator == "+":
        return bits | chosen
    if operator == "-":
        return bits & ~chosen
    # GNU chmod takes set-id bits from a directory only when they are named.
    kept = ~who | (0o6000 if is_directory and "s" not in what else 0)
    return (bits & kept) | chosen


def _chosen(what: str, bits: int, is_directory: bool) -> int:
    if what in _SHIFT:
        return ((bits >> _SHIFT[what]) & 0o7) * 0o111
    chosen = 0
    for letter in what:
        if letter == "X" and not is_directory and not bits & 0o111:
            continue
        chosen |= _BITS[letter.lower()]
    return chosen
