"""The registration with SUSE's customer center, or RMT."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="suse-registration",
    heading="Remove the registration with SUSE",
    description="The credentials by which the server knows this machine; SUSEConnect registers a "
    "clone.",
    plan=lambda guest, _: remove(guest, "/etc/zypp/credentials.d/*"),
)
