"""Leases and identities of DHCP clients."""

from __future__ import annotations

from imgtools.api import Operation, remove

PATTERNS = (
    "/var/lib/dhclient/*",
    # Debian's folder is also the server's.
    "/var/lib/dhcp/dhclient*",
    "/var/lib/dhcp/*duid*",
    "/var/lib/dhcp3/dhclient*",
    "/var/lib/dhcpv6/*",
    "/var/lib/dhcpcd/*",
    "/var/lib/dhcpcd5/*",
    "/etc/dhcpcd.duid",
    "/etc/dhcpcd.secret",
    "/var/lib/wicked/*",
)

operation = Operation(
    name="dhcp-client-state",
    heading="Remove the leases of DHCP clients",
    description="Leases and DUIDs of dhclient, dhcpcd and wicked: with them, clones ask for one "
    "and the same address.",
    plan=lambda guest, _: remove(guest, *PATTERNS),
)
