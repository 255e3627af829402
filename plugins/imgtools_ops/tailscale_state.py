"""The node key of Tailscale."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="tailscale-state",
    heading="Remove the identity of Tailscale",
    description="Keys, logs and certificates in /var/lib/tailscale; a clone is no node of the "
    "network until it logs in.",
    plan=lambda guest, _: remove(guest, "/var/lib/tailscale/*"),
)
