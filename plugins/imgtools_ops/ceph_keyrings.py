"""Keys of a Ceph cluster."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="ceph-keyrings",
    heading="Remove the keys of a Ceph cluster",
    description="Keyrings in /etc/ceph and those that make new daemons. Off by default: clients "
    "that mount from the cluster need theirs.",
    plan=lambda guest, _: remove(
        guest, "/etc/ceph/*.keyring", "/var/lib/ceph/bootstrap-*/*.keyring"
    ),
    default=False,
)
