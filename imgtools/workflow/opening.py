"""From what the user pointed at to disks that are safe to open."""

from __future__ import annotations

from collections.abc import Sequence

from imgtools.errors import UsageError
from imgtools.image.chain import resolve_disk
from imgtools.model import Disk, DiskRequest


def resolve_disks(requests: Sequence[DiskRequest], *, untrusted: bool) -> tuple[Disk, ...]:
    """Vet every image and its chain, note which ones are in use, refuse the same file twice.

    Raises what `imgtools.image.chain.resolve_disk` raises, and UsageError for a file that is
    named twice.
    """
    disks = tuple(resolve_disk(request, untrusted=untrusted) for request in requests)
    names: dict[str, str] = {}
    for disk in disks:
        key = disk.uri or str(disk.layers[0].path.resolve())
        if key in names:
            raise UsageError(f"{disk.name}: the same image is named twice")
        names[key] = disk.name
    return disks
