"""Leases and DHCP identity of systemd-networkd, and the cards that its files are for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, remove_paths, rewrite

LEASES = ("/var/lib/systemd/network/*", "/run/systemd/netif/leases/*")
CONFIGURATION = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf")
# networkd.conf(5): without it the DUID is made from the machine's ID.
DUID = re.compile(rb"^[ \t]*DUIDRawData[ \t]*=.*\n?", re.MULTILINE)
FILES = tuple(f"/etc/systemd/network/*.{kind}" for kind in ("link", "netdev", "network"))
SECTION = re.compile(rb"^\[(\w+)\][ \t]*\n(?:(?!\[).*\n?)*", re.MULTILINE)
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
            if path.endswith(b".link") and _is_only_for_one_card(guest.read(path) or b""):
                yield from remove_paths(guest, [path])
            else:
                yield from rewrite(guest, path, lambda text: SECTION.sub(_without_mac, text))


def _is_only_for_one_card(text: bytes) -> bool:
    """True if [Match] goes by MAC addresses alone: in a clone the file is without effect."""
    sections = [one[0] for one in SECTION.finditer(text) if one[1] == b"Match"]
    return bool(sections) and all(MAC.search(one) and not OTHERS.search(one) for one in sections)


def _without_mac(section: re.Match[bytes]) -> bytes:
    """The section without MAC addresses, unless they are all that a [Match] goes by.

    In other sections they are what the card shall pretend to have.
    """
    if section[1] == b"Match" and not OTHERS.search(section[0]):
        return section[0]
    return MAC.sub(b"", section[0])


operation = Operation(
    name="networkd-state",
    heading="Remove systemd-networkd's leases, DHCP ID and MAC addresses",
    description="Leases on the disk; DUIDRawData in networkd.conf, by which clones would be one "
    "client to a DHCP server; in .network, .netdev and .link files the MAC address that a card "
    "shall pretend to have, and that of the card they are for, where its name or path is in "
    "[Match], too. A .link file that goes by a MAC address alone is removed.",
    plan=_plan,
)
