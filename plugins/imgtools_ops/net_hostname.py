"""Host names in the files of network interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_lines

LINE = re.compile(rb"^[ \t]*(?:DHCP_HOSTNAME|HOSTNAME)=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    return remove_lines(guest, LINE, "/etc/sysconfig/network-scripts/ifcfg-*")


operation = Operation(
    name="net-hostname",
    heading="Remove host names from the network interfaces' files",
    description="HOSTNAME and DHCP_HOSTNAME in ifcfg-* of the Red Hat family: the name of this "
    "machine, which its DHCP server gets to know.",
    families=("fedora", "rhel"),
    plan=_plan,
)
