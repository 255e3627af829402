"""The copies that useradd and its kin leave."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="passwd-backups",
    heading="Remove the backup copies of passwd, shadow and group",
    description="/etc/passwd-, /etc/shadow- and so on hold accounts and password hashes as they "
    "were before the last change.",
    plan=lambda guest, _: remove(
        guest,
        "/etc/group-",
        "/etc/gshadow-",
        "/etc/passwd-",
        "/etc/shadow-",
        "/etc/subgid-",
        "/etc/subuid-",
    ),
)
