"""The name of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove_files, rewrite

# Debian's installer gives the name this address.
HOSTS = re.compile(rb"^127\.0\.1\.1[ \t].*\n?", re.MULTILINE)
SYSCONFIG = re.compile(rb"^[ \t]*HOSTNAME=.*\n?", re.MULTILINE)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from remove_files(guest, "/etc/hostname", "/etc/HOSTNAME")
    if guest.tree.is_file(b"/etc/hosts"):
        yield from rewrite(guest, "/etc/hosts", lambda text: HOSTS.sub(b"", text))
    if guest.tree.is_file(b"/etc/sysconfig/network"):
        yield from rewrite(guest, "/etc/sysconfig/network", lambda text: SYSCONFIG.sub(b"", text))


operation = Operation(
    name="hostname-file",
    heading="Remove the name of the machine",
    description="/etc/hostname and the entry 127.0.1.1 of /etc/hosts; a clone has the name that "
    "DHCP or cloud-init gives it, else localhost. Off by default: services may need the name.",
    default=False,
    plan=_plan,
)
