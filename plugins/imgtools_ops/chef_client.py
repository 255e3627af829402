"""The identity of a Chef client."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="chef-client",
    heading="Remove the identity of the Chef client",
    description="The client's key and caches; validation.pem, with which it registers anew, stays.",
    plan=lambda guest, _: remove(
        guest,
        "/etc/chef/client.pem",
        "/var/chef/cache/*",
        "/var/chef/backup/*",
        "/var/lib/chef/*",
    ),
)
