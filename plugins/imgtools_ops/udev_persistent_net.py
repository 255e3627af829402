"""Names of network cards by their MAC addresses."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="udev-persistent-net",
    heading="Remove udev's fixed names of network cards",
    description="Old udev wrote rules that tie eth0 to the MAC address of this machine; a "
    "clone's card would become eth1, without configuration.",
    plan=lambda guest, _: remove(guest, "/etc/udev/rules.d/70-persistent-net.rules"),
)
