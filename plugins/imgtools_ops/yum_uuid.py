"""The ID that yum sends to mirrors."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="yum-uuid",
    heading="Remove the ID of yum",
    description="Yum makes a new one when it runs next.",
    plan=lambda guest, _: remove(guest, "/var/lib/yum/uuid"),
)
