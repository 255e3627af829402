"""Leases and DHCP identity of systemd-networkd."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

LEASES = ("/var/lib/systemd/network/*", "/run/systemd/netif/leases/*")
CONFIGURATION = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf")
# networkd.conf(5): without it the DUID is made from the machine's ID.
LINE = re.compile(rb"^[ \t]*DUIDRawData[ \t]*=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove(guest, *LEASES)
    for path in guest.glob(*CONFIGURATION):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: LINE.sub(b"", text))


operation = Operation(
    name="networkd-state",
    heading="Remove systemd-networkd's leases and DHCP ID",
    description="Leases on the disk, and DUIDRawData in networkd.conf, by which clones would be "
    "one client to a DHCP server.",
    plan=_plan,
)
