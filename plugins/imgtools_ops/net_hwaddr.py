"""MAC addresses in the files of network interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, rewrite

LINE = re.compile(rb"^[ \t]*(?:HWADDR)=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob("/etc/sysconfig/network-scripts/ifcfg-*"):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: LINE.sub(b"", text))


operation = Operation(
    name="net-hwaddr",
    heading="Remove MAC addresses from the network interfaces' files",
    description="HWADDR in ifcfg-* of the Red Hat family: with it, the file is for the card of "
    "this machine only.",
    families=("fedora", "rhel"),
    plan=_plan,
)
