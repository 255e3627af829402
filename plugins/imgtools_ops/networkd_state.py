"""Leases and DHCP identity of systemd-networkd, and the cards that its files are for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

LEASES = ("/var/lib/systemd/network/*", "/run/systemd/netif/leases/*")
CONFIGURATION = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf")
# networkd.conf(5): without it the DUID is made from the machine's ID.
DUID = re.compile(rb"^[ \t]*DUIDRawData[ \t]*=.*\n?", re.MULTILINE)
FILES = ("/etc/systemd/network/*.link", "/etc/systemd/network/*.network")
MATCH = re.compile(rb"^\[Match\][ \t]*\n(?:(?!\[).*\n?)*", re.MULTILINE)
MAC = re.compile(rb"^[ \t]*(?:Permanent)?MACAddress[ \t]*=.*\n?", re.MULTILINE)
# What else in [Match] tells one card from another: systemd.network(5), systemd.link(5).
OTHERS = re.compile(rb"^[ \t]*(?:Name|OriginalName|Path)[ \t]*=[ \t]*\S", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove(guest, *LEASES)
    for path in guest.glob(*CONFIGURATION):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: DUID.sub(b"", text))
    for path in guest.glob(*FILES):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: MATCH.sub(_without_mac, text))


def _without_mac(section: re.Match[bytes]) -> bytes:
    """The section without MAC addresses, unless they are all that it goes by."""
    return MAC.sub(b"", section[0]) if OTHERS.search(section[0]) else section[0]


operation = Operation(
    name="networkd-state",
    heading="Remove systemd-networkd's leases, DHCP ID and MAC addresses",
    description="Leases on the disk; DUIDRawData in networkd.conf, by which clones would be one "
    "client to a DHCP server; and in .network and .link files the MAC address of the card that "
    "they are for, where its name or path is in [Match], too.",
    plan=_plan,
)
