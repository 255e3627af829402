"""Leases that a DHCP server gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, empty_paths, remove_paths

PATTERNS = (
    "/var/lib/dhcpd/*",
    "/var/lib/dhcp/dhcpd*",
    "/var/lib/dhcp/db/dhcpd*",
    "/var/lib/dhcp6/db/dhcpd*",
    "/var/lib/kea/*.csv*",
)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob(*PATTERNS):
        # dhcpd does not start without the file of its leases, not even an empty one.
        is_database = path.endswith(b".leases") and guest.tree.is_file(path)
        act = empty_paths if is_database else remove_paths
        yield from act(guest, [path])


operation = Operation(
    name="dhcp-server-state",
    heading="Remove the leases that a DHCP server gave",
    description="The databases of ISC dhcpd, left empty as it does not start without them, "
    "and of Kea.",
    plan=_plan,
)
