"""From what the user pointed at to disks that are safe to open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imgtools.errors import UsageError
from imgtools.image.chain import resolve_disk
from imgtools.image.locks import lock_state
from imgtools.model import Disk, DiskRequest


def resolve_disks(requests: Sequence[DiskRequest], *, untrusted: bool) -> tuple[Disk, ...]:
    """Vet every image and its chain, note which ones are in use, refuse the same file twice.

    Raises what `imgtools.image.chain.resolve_disk` raises, and UsageError for a file that is
    named twice.
    """
    disks = tuple(_resolve(request, untrusted=untrusted) for request in requests)
    _refuse_twice(disks)
    return disks


def _resolve(request: DiskRequest, *, untrusted: bool) -> Disk:
    disk = resolve_disk(request, untrusted=untrusted)
    files = [path for layer in disk.layers for path in (layer.path, *layer.extents)]
    # A writer below the active layer (a running base) changes what we read just as well.
    return replace(disk, in_use=any(lock_state(path).writer for path in files))


def _refuse_twice(disks: Sequence[Disk]) -> None:
    names: dict[object, str] = {}
    for disk in disks:
        if disk.layers:
            status = disk.layers[0].path.stat()
            key: object = (status.st_dev, status.st_ino)
        else:
            key = disk.uri
        if key in names:
            raise UsageError(
                f"{disk.name}: the same image is named twice (as {names[key]})",
                hint="name each disk of the guest once",
            )
        names[key] = disk.name
