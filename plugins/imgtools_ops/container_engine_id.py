"""IDs of Docker and containerd."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="container-engine-id",
    heading="Remove the IDs of container engines",
    description="Docker's engine ID (and its key in older versions) and containerd's UUID; both "
    "are made anew. Images, containers and volumes stay.",
    plan=lambda guest, _: remove(
        guest,
        "/var/lib/docker/engine-id",
        "/etc/docker/key.json",
        "/var/lib/containerd/io.containerd.grpc.v1.introspection/uuid",
    ),
)
