"""Dumps of the kernel (kdump, netdump) and of programs (systemd-coredump)."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="crash-data",
    heading="Remove crash dumps",
    description="Dumps hold the memory of this machine: keys and passwords, too.",
    plan=lambda guest, _: remove(
        guest, "/var/crash/*", "/var/log/dump/*", "/var/lib/systemd/coredump/*"
    ),
)
