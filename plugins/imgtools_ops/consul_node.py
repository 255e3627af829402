"""The identity of a Consul node."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="consul-node",
    heading="Remove the identity of the Consul node",
    description="Node ID and what the node remembers of its cluster, in the usual data "
    "directories.",
    plan=lambda guest, _: remove(
        guest,
        *(
            f"{folder}/{name}"
            for folder in ("/opt/consul", "/var/lib/consul", "/var/consul")
            for name in ("node-id", "checkpoint-signature", "serf/*")
        ),
    ),
)
