"""Connection profiles of NetworkManager."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="net-nmconn",
    heading="Remove NetworkManager's connection profiles",
    description="Keyfiles below /etc/NetworkManager/system-connections, on the Red Hat family "
    "only: there NetworkManager makes a new profile for each card of a clone.",
    plan=lambda guest, _: remove(guest, "/etc/NetworkManager/system-connections/*.nmconnection"),
    families=("fedora", "rhel"),
)
