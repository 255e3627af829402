"""Names of network cards by their MAC addresses."""

from __future__ import annotations

from imgtools.api import Operation, remove

# Of udev's own generator; of Debian before it, of SUSE before it.  The generator itself stays.
FILES = tuple(
    f"/etc/udev/rules.d/{name}"
    for name in (
        "*-persistent-net.rules",
        "z25_persistent-net.rules",
        "*-net_persistent_names.rules",
    )
)

operation = Operation(
    name="udev-persistent-net",
    heading="Remove udev's fixed names of network cards",
    description="Old udev wrote rules that tie eth0 to the MAC address of this machine; a "
    "clone's card would become eth1, without configuration.",
    plan=lambda guest, _: remove(guest, *FILES),
)
