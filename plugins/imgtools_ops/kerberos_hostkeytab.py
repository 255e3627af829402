"""The keys of this host in its Kerberos realm."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="kerberos-hostkeytab",
    heading="Remove the Kerberos keys of the host",
    description="/etc/krb5.keytab proves to a realm that this is the machine it was issued to.",
    plan=lambda guest, _: remove(guest, "/etc/krb5.keytab"),
)
