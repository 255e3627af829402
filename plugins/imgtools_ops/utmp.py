"""Who is logged in now."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="utmp",
    heading="Remove the list of logins",
    description="/run/utmp, where /run is on the disk.",
    plan=lambda guest, _: remove(guest, "/run/utmp", "/var/run/utmp"),
)
