"""The registration with RHN Classic, Spacewalk or SUSE Manager."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="rhn-systemid",
    heading="Remove the system ID of RHN and Spacewalk",
    description="The certificate by which the server knows this machine.",
    plan=lambda guest, _: remove(
        guest, "/etc/sysconfig/rhn/systemid", "/etc/sysconfig/rhn/osad-auth.conf"
    ),
)
