"""The identity of a ZeroTier node."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="zerotier-identity",
    heading="Remove the identity of ZeroTier",
    description="The node's address and secret; the networks that it joined stay, and have to "
    "accept it anew.",
    plan=lambda guest, _: remove(
        guest,
        "/var/lib/zerotier-one/identity.public",
        "/var/lib/zerotier-one/identity.secret",
        "/var/lib/zerotier-one/authtoken.secret",
    ),
)
