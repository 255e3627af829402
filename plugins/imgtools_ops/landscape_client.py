"""The registration with Canonical's Landscape."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="landscape-client",
    heading="Remove the registration with Landscape",
    description="What the client knows of its server, and messages that wait; the configuration "
    "stays.",
    plan=lambda guest, _: remove(
        guest,
        "/var/lib/landscape/client/*.bpickle",
        "/var/lib/landscape/client/*.bpickle.old",
        "/var/lib/landscape/client/messages/*",
    ),
)
