"""Mail that waits on this machine."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="mail-spool",
    heading="Remove mail from the local spool",
    description="Mailboxes in /var/mail and /var/spool/mail.",
    plan=lambda guest, _: remove(guest, "/var/spool/mail/*", "/var/mail/*"),
)
