"""The registration with SUSE's customer center, or RMT, and the ID that zypper sends."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="suse-registration",
    heading="Remove the registration with SUSE",
    description="The credentials by which the server knows this machine; SUSEConnect registers a "
    "clone.  And the random ID by which zypper has its downloads counted; it makes another.",
    plan=lambda guest, _: remove(
        guest, "/etc/zypp/credentials.d/*", "/var/lib/zypp/AnonymousUniqueId"
    ),
)
