"""MAC addresses in the files of network interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_lines

_MAC = rb"[\"']?(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}[\"']?[ \t]*(?:#.*)?$\n?"
# HWADDR is the card that the file is for; MACADDR and LLADDR are what it shall pretend, of which
# words such as MACADDR=random stay.
IFCFG = re.compile(rb"^[ \t]*(?:HWADDR=.*\n?|(?:MACADDR|LLADDR)=" + _MAC + rb")", re.MULTILINE)
# interfaces(5), with or without the class "ether".
INTERFACES = re.compile(rb"^[ \t]*hwaddress[ \t]+(?:ether[ \t]+)?" + _MAC, re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove_lines(
        guest, IFCFG, "/etc/sysconfig/network-scripts/ifcfg-*", "/etc/sysconfig/network/ifcfg-*"
    )
    yield from remove_lines(
        guest, INTERFACES, "/etc/network/interfaces", "/etc/network/interfaces.d/*"
    )


operation = Operation(
    name="net-hwaddr",
    heading="Remove MAC addresses from the network interfaces' files",
    description="HWADDR, MACADDR and LLADDR in ifcfg-* of Red Hat and SUSE, hwaddress in "
    "interfaces(5) of Debian: the file is for the card of this machine only, or gives one address "
    "to all clones.",
    plan=_plan,
)
