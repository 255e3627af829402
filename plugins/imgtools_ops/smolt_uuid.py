"""The ID that Smolt, Fedora's hardware survey, gave."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="smolt-uuid",
    heading="Remove the hardware ID of Smolt",
    description="Smolt ended in 2012; its ID may still be in old guests.",
    plan=lambda guest, _: remove(
        guest, "/etc/sysconfig/hw-uuid", "/etc/smolt/uuid", "/etc/smolt/hw-uuid"
    ),
)
