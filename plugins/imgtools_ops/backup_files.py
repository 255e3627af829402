"""Copies that editors leave beside the files they changed."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from imgtools.api import Guest, Operation, remove_paths

FOLDERS = ("/etc", "/root", "/srv", "/tmp", "/var")
# What is in here belongs to an image of its own, which would no longer be whole.
STORES = tuple(
    f"/var/lib/{name}/".encode()
    for name in ("containerd", "containers", "docker", "flatpak", "lxc", "lxd", "machines", "snapd")
)


def _backups(guest: Guest) -> Iterator[bytes]:
    for path, found in guest.files_below(*FOLDERS):
        if (
            path.endswith((b"~", b".bak"))
            and stat.S_ISREG(found.mode)
            and not path.startswith(STORES)
        ):
            yield path


operation = Operation(
    name="backup-files",
    heading="Remove editors' backup files",
    description="Files called *~ and *.bak below /etc, /root, /srv, /tmp and /var, "
    "but not in the stores of containers.",
    plan=lambda guest, _: remove_paths(guest, _backups(guest)),
)
