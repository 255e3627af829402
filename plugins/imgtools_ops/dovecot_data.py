"""What the mail server Dovecot makes of its own."""

from __future__ import annotations

from imgtools.api import Operation, remove_files

operation = Operation(
    name="dovecot-data",
    heading="Remove the data of the mail server Dovecot",
    description="Files in /var/lib/dovecot: instance list, Diffie-Hellman parameters. Mail is "
    "not touched.",
    plan=lambda guest, _: remove_files(guest, "/var/lib/dovecot/*"),
)
