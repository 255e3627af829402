"""Inspect every operating system on the disks.

Ours is written once over `model.Engine`, so that both engines give the same document; only what is
not Linux goes to libguestfs, see `imgtools.guest.foreign`.
"""

from __future__ import annotations

from imgtools.guest.foreign import inspect_foreign
from imgtools.guest.inspection import Inspection
from imgtools.guest.linux.inspect import inspect_linux
from imgtools.guest.opening import Session
from imgtools.guest.roots import find_roots


def inspect_guests(
    session: Session,
    *,
    applications: bool = True,
    icon: bool = True,
    tolerant: bool = False,
) -> list[Inspection]:
    """Inspect every operating system on the session's disks, in libguestfs's order of devices.

    With ``tolerant`` what the direct engine refuses costs the field instead of the whole task.
    The warnings of all guests are also the session's.
    """
    scan = find_roots(session, tolerant=tolerant)
    storage = session.engine.storage()
    results = inspect_foreign(scan, applications=applications)
    results += [
        inspect_linux(root, storage, scan.mount, applications=applications, with_icon=icon)
        for root in scan.roots
    ]
    for result in results:
        for warning in result.warnings:
            session.warn(warning.code, warning.message)
    order = {fs.device: index for index, fs in enumerate(storage.filesystems)}
    return sorted(results, key=lambda found: order.get(found.root, len(order)))
