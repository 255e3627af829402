"""The ID of the installation."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_paths, rewrite

ETC = b"/etc/machine-id"
DBUS = b"/var/lib/dbus/machine-id"
# machine-id(5): systemd writes a new ID in its place at the next boot, and takes that for the
# first one.  Older versions, which do not know the word, take it for no ID.
NONE = b"uninitialized\n"


def _is_plain(guest: Guest, path: bytes) -> bool:
    return any(stat.S_ISREG(guest.tree.lstat(one).mode) for one in guest.glob(path.decode()))


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    if _is_plain(guest, ETC):
        yield from rewrite(guest, ETC, lambda _: NONE)
    # A link leads to /etc/machine-id; a file of its own would be kept by D-Bus, and is even
    # where systemd looks for an ID.
    if _is_plain(guest, DBUS):
        yield from remove_paths(guest, [DBUS])


operation = Operation(
    name="machine-id",
    heading="Make systemd give the machine a new ID",
    description="/etc/machine-id says 'uninitialized', and D-Bus's own copy is removed. With one "
    "ID, clones get the same address by DHCP and mix up their journals. Done last, so that "
    "nothing writes an ID after it.",
    order=99,
    plan=_plan,
)
