"""The list of the disks that LVM may use."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="lvm-system-devices",
    heading="Remove LVM's list of devices",
    description="/etc/lvm/devices/system.devices names disks by serial number or WWID. A clone's "
    "disks have others, and LVM would not find its volumes. Without the file LVM "
    "looks at all disks.",
    plan=lambda guest, _: remove(
        guest, "/etc/lvm/devices/system.devices", "/etc/lvm/devices/backup/system.devices-*"
    ),
)
