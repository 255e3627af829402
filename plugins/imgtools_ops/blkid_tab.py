"""The cache of blkid."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from imgtools.api import Guest, Operation, remove_paths

PATTERNS = tuple(
    f"{folder}{name}"
    for folder in ("/run/blkid/", "/run/", "/var/run/", "/etc/blkid/", "/etc/", "/dev/.")
    for name in ("blkid.tab", "blkid.tab.old")
)


def _files(guest: Guest) -> Iterator[bytes]:
    """What is there, but no links: /etc/blkid.tab may lead to /run."""
    for path in guest.glob(*PATTERNS):
        if stat.S_ISREG(guest.tree.lstat(path).mode):
            yield path


operation = Operation(
    name="blkid-tab",
    heading="Remove the cache of blkid",
    description="The UUIDs and labels of this machine's disks; blkid finds them again.",
    plan=lambda guest, _: remove_paths(guest, _files(guest)),
)
