"""Accounts of people, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imgtools.api import (
    Action,
    Guest,
    GuestOperationError,
    Operation,
    Option,
    remove,
    remove_paths,
    rewrite,
)

REMOVE = "remove-user-accounts"
KEEP = "keep-user-accounts"
# What login.defs(5) means where it says nothing.
DEFAULT_RANGE = (1000, 60000)
PLACES = (
    "/var/mail/{}",
    "/var/spool/mail/{}",
    "/var/spool/cron/{}",
    "/var/spool/cron/crontabs/{}",
    "/var/spool/cron/tabs/{}",
    "/var/lib/AccountsService/users/{}",
    "/var/lib/systemd/linger/{}",
)


@dataclass(frozen=True, slots=True)
class Account:
    """A line of /etc/passwd."""

    name: bytes
    uid: int
    gid: int
    home: bytes


def _plan(guest: Guest, values: Mapping[str, Any]) -> Iterator[Action]:
    accounts = _accounts(guest)
    gone = _chosen(guest, accounts, _names(values.get(REMOVE)), _names(values.get(KEEP)))
    if not gone:
        return
    kept = [one for one in accounts if one not in gone]
    names = {one.name for one in gone}
    by_name = _without(lambda fields: fields[0] in names)
    for file in "passwd", "shadow":
        yield from rewrite(guest, f"/etc/{file}", by_name)
    ids = names | {b"%d" % one.uid for one in gone}
    for file in "subuid", "subgid":
        yield from rewrite(guest, f"/etc/{file}", _without(lambda fields: fields[0] in ids))
    own = _own_groups(guest, gone, kept)
    for file in "group", "gshadow":
        yield from rewrite(guest, f"/etc/{file}", lambda text: _groups(text, names, own))
    for one in gone:
        if _is_own(guest, one, kept):
            yield from remove_paths(guest, [one.home])
        # A name with the characters of a pattern would match those of others.
        if not set(b"*?[/") & set(one.name):
            text = one.name.decode(errors="surrogateescape")
            yield from remove(guest, *(place.format(text) for place in PLACES))


def _names(values: Any) -> set[bytes]:
    words = (word.strip() for value in values or () for word in value.split(","))
    return {word.encode(errors="surrogateescape") for word in words if word}


def _accounts(guest: Guest) -> list[Account]:
    accounts = []
    for line in (guest.read("/etc/passwd") or b"").splitlines():
        fields = line.split(b":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            accounts.append(Account(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return accounts


def _chosen(
    guest: Guest, accounts: list[Account], wanted: set[bytes], kept: set[bytes]
) -> list[Account]:
    """The accounts to remove.  Raises GuestOperationError for one of the system's by name."""
    low, high = _range(guest)
    for one in accounts:
        if one.name in wanted - kept and not low <= one.uid <= high:
            name = one.name.decode(errors="replace")
            raise GuestOperationError(
                f"{name}: has UID {one.uid}; only accounts with UIDs from {low} to {high} "
                "(UID_MIN and UID_MAX in /etc/login.defs) are removed",
                hint=f"take it out of --{REMOVE}",
            )
    return [
        one
        for one in accounts
        if low <= one.uid <= high and one.name not in kept and (not wanted or one.name in wanted)
    ]


def _range(guest: Guest) -> tuple[int, int]:
    found = dict(zip((b"UID_MIN", b"UID_MAX"), DEFAULT_RANGE, strict=True))
    for line in (guest.read("/etc/login.defs") or b"").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in found and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found[b"UID_MIN"], found[b"UID_MAX"]


def _without(drop: Callable[[list[bytes]], bool]) -> Callable[[bytes], bytes]:
    def transform(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join(line for line in lines if not drop(line.rstrip(b"\n").split(b":")))

    return transform


def _own_groups(guest: Guest, gone: list[Account], kept: list[Account]) -> set[bytes]:
    """The groups called as their only member, which useradd makes."""
    names = {one.name for one in gone}
    primary = {one.gid for one in kept}
    own = set()
    for line in (guest.read("/etc/group") or b"").splitlines():
        fields = line.split(b":")
        if len(fields) == 4 and fields[0] in names and fields[2].isdigit():
            others = set(fields[3].split(b",")) - names - {b""}
            if not others and int(fields[2]) not in primary:
                own.add(fields[0])
    return own


def _groups(text: bytes, names: set[bytes], own: set[bytes]) -> bytes:
    """group(5) or gshadow(5) without these groups, and without these members in all others.

    The last field is the members in both; gshadow has administrators before it.
    """
    lines = []
    for line in text.splitlines(keepends=True):
        fields = line.rstrip(b"\n").split(b":")
        if len(fields) != 4:
            lines.append(line)
        elif fields[0] not in own:
            for index in 2, 3:
                members = fields[index].split(b",")
                if names & set(members):
                    fields[index] = b",".join(one for one in members if one not in names)
            lines.append(b":".join(fields) + (b"\n" if line.endswith(b"\n") else b""))
    return b"".join(lines)


def _is_own(guest: Guest, account: Account, kept: list[Account]) -> bool:
    """True if the home is the account's own folder, and nobody else lives in it."""
    if not account.home.startswith(b"/") or not guest.tree.is_dir(account.home):
        return False
    home = guest.tree.resolve(account.home)
    if home.count(b"/") < 2 or guest.tree.lstat(home).uid != account.uid:
        return False
    homes = (b"/" + one.home.strip(b"/") for one in kept)
    others = (guest.tree.resolve(one) for one in homes if guest.tree.is_dir(one))
    return not any(other == home or other.startswith(home + b"/") for other in others)


operation = Operation(
    name="user-account",
    heading="Remove the accounts of people",
    description="Accounts with a UID from UID_MIN to UID_MAX of /etc/login.defs: their lines in "
    "passwd, shadow, group, gshadow, subuid and subgid, and their home, mail and cron jobs. "
    f"--{REMOVE} names which, --{KEEP} which not. root and those of the system stay.",
    default=False,
    options=(
        Option(
            name=REMOVE,
            metavar="NAME,…",
            multiple=True,
            help="user-account: remove only these accounts.",
        ),
        Option(
            name=KEEP,
            metavar="NAME,…",
            multiple=True,
            help="user-account: keep these accounts.",
        ),
    ),
    plan=_plan,
)
