"""Databases and logs of Samba."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

operation = Operation(
    name="samba-db-log",
    heading="Remove the databases and logs of Samba",
    description="Machine account, SID, passwords and caches; sysvol and printer drivers stay.",
    plan=lambda guest, _: remove_files(
        guest,
        "/var/log/samba/*",
        "/var/log/samba/old/*",
        "/var/lib/samba/*",
        "/var/lib/samba/*/*",
        "/var/cache/samba/*",
    ),
)
