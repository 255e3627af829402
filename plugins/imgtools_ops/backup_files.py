"""Copies that editors leave beside the files they changed."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from imgtools.api import Guest, Operation, remove_paths

FOLDERS = ("/etc", "/root", "/srv", "/tmp", "/var")
# What is in here belongs to an image of its own, which would no longer be whole; and there may be
# millions of files.
STORES = (
    *("buildkit", "containerd", "containers", "docker", "flatpak", "incus", "k0s", "kubelet"),
    *("lxc", "lxd", "machines", "portables", "rancher", "snapd", "waydroid"),
)
STORE = re.compile(
    rb"\A/var/(?:lib/(?:" + "|".join(STORES).encode() + rb")|snap)\Z"
    rb"|\A/root/snap\Z|/\.local/share/(?:containers|docker|flatpak)\Z"
)


def _backups(guest: Guest) -> Iterator[bytes]:
    for path, found in guest.files_below(*FOLDERS, enter=lambda path: not STORE.search(path)):
        if path.endswith((b"~", b".bak")) and stat.S_ISREG(found.mode):
            yield path


operation = Operation(
    name="backup-files",
    heading="Remove editors' backup files",
    description="Files called *~ and *.bak below /etc, /root, /srv, /tmp and /var, "
    "but not in the stores of containers.",
    plan=lambda guest, _: remove_paths(guest, _backups(guest)),
)
