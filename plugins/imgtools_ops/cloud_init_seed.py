"""What cloud-init reads in the guest in place of a cloud's data."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="cloud-init-seed",
    heading="Remove cloud-init's seed",
    description="User data and instance ID in /var/lib/cloud/seed. Off by default: a template "
    "may carry them on purpose, and a clone may need them.",
    plan=lambda guest, _: remove(guest, "/var/lib/cloud/seed/*"),
    default=False,
)
