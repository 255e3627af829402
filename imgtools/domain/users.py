"""Which running domain of this host uses an image, by libvirt's own books.

qemu's locks tell the same of most guests (see ``image.hold``); libvirt also knows of those whose
locks do not show: on storage without locks, of other hypervisors, or just being started.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from imgtools.domain.connection import open_connection
from imgtools.domain.domains import Domain, list_domains
from imgtools.errors import ImgtoolsError

# The sockets of libvirtd and of the modular daemon: without one of them nothing is asked, since
# connecting would start a daemon of the user's own.
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
URI = "qemu:///system"


def running_domain_with(images: Sequence[Path]) -> tuple[Path, str] | None:
    """The first of ``images`` that a running domain has as a disk, and its name; None if none is.

    None as well where no libvirt answers, or its binding is missing.
    """
    wanted = {os.path.realpath(image): image for image in images}
    for domain in known_domains():
        if not domain.active:
            continue
        paths = (os.path.realpath(disk.path) for disk in domain.disks if disk.path)
        if path := next((path for path in paths if path in wanted), None):
            return wanted[path], domain.name
    return None


def known_domains() -> list[Domain]:
    """All domains of this host's libvirt; none where it does not answer, or lacks its binding."""
    if not any(Path(socket).exists() for socket in SOCKETS):
        return []
    try:
        with open_connection(URI) as connection:
            return list_domains(connection)
    except ImgtoolsError:
        return []
