"""The name of this host to NVMe over Fabrics."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="nvme-host",
    heading="Remove the NVMe ID of the host",
    description="Without the files, the name is made from the machine's DMI UUID, which a clone "
    "has its own of.",
    plan=lambda guest, _: remove(guest, "/etc/nvme/hostid", "/etc/nvme/hostnqn"),
)
