"""MAC addresses in the files of network interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_lines

LINE = re.compile(rb"^[ \t]*(?:HWADDR)=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    return remove_lines(guest, LINE, "/etc/sysconfig/network-scripts/ifcfg-*")


operation = Operation(
    name="net-hwaddr",
    heading="Remove MAC addresses from the network interfaces' files",
    description="HWADDR in ifcfg-* of the Red Hat family: with it, the file is for the card of "
    "this machine only.",
    families=("fedora", "rhel"),
    plan=_plan,
)
