"""Files of the RPM database that belong to a running system."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="rpm-db",
    heading="Remove locks and shared memory of the RPM database",
    description="Berkeley DB regions (__db.*); rpm makes them anew. The packages are in other "
    "files.",
    plan=lambda guest, _: remove(guest, "/var/lib/rpm/__db.*", "/usr/lib/sysimage/rpm/__db.*"),
)
