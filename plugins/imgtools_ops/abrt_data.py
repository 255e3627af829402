"""The crashes that ABRT (Automatic Bug Reporting Tool) collected."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="abrt-data",
    heading="Remove the crash data of ABRT",
    description="Problem folders below /var/spool/abrt hold core dumps, command lines and "
    "environment variables of this machine's programs.",
    plan=lambda guest, _: remove(guest, "/var/spool/abrt/*", "/var/tmp/abrt/*"),
)
