"""The registration with Red Hat's subscription service, or with Foreman."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="rh-subscription-manager",
    heading="Remove the registration of subscription-manager",
    description="Certificates of the consumer and of its entitlements; a clone would be the same "
    "machine to Red Hat, Satellite or Foreman.",
    plan=lambda guest, _: remove(
        guest,
        "/etc/pki/consumer/*",
        "/etc/pki/entitlement/*",
        "/var/lib/rhsm/cache/*",
        "/var/lib/rhsm/facts/*",
    ),
)
