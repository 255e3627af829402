"""Caches and logs of SSSD."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

operation = Operation(
    name="sssd-db-log",
    heading="Remove the caches and logs of SSSD",
    description="Accounts and password hashes that SSSD keeps for when its server is away.",
    plan=lambda guest, _: remove_files(
        guest, "/var/log/sssd/*", "/var/lib/sss/db/*", "/var/lib/sss/mc/*", "/var/lib/sss/secrets/*"
    ),
)
