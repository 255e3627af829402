"""The identity of a Salt minion."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="salt-minion",
    heading="Remove the identity of the Salt minion",
    description="Its ID, keys and caches; the minion makes new ones, and asks the master to "
    "accept them.",
    plan=lambda guest, _: remove(
        guest, "/etc/salt/minion_id", "/etc/salt/pki/minion/*", "/var/cache/salt/minion/*"
    ),
)
