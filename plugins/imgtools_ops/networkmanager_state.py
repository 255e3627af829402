"""What NetworkManager remembers of this machine and its networks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

STATE = (
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/NetworkManager/dhclient*",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/NetworkManager/seen-bssids",
    "/var/lib/NetworkManager/timestamps",
)
# The card that a connection is for, and what it shall pretend, unless that is a word (random).
LINE = re.compile(
    rb"^[ \t]*(?:mac-address[ \t]*=.*"
    rb"|cloned-mac-address[ \t]*=[ \t]*(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}[ \t]*$)\n?",
    re.MULTILINE,
)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove(guest, *STATE)
    for path in guest.glob("/etc/NetworkManager/system-connections/*"):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: LINE.sub(b"", text))


operation = Operation(
    name="networkmanager-state",
    heading="Remove NetworkManager's leases, secret and MAC addresses",
    description="Leases, times and networks seen; the secret from which addresses and DHCP IDs "
    "are made; and in connections the MAC address of the card that they are for, or that it shall "
    "pretend to have.",
    plan=_plan,
)
