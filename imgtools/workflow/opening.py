"""From what the user pointed at to disks that are safe to open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imgtools.errors import ImgtoolsError, RefusedError, UsageError
from imgtools.image.chain import resolve_disk
from imgtools.image.locks import lock_state
from imgtools.image.vet import vet
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from imgtools.model.notices import Notice
from imgtools.transaction.record import has_record

if TYPE_CHECKING:
    from imgtools.transaction.recovery import Interrupted


def resolve_disks(
    requests: Sequence[DiskRequest], *, untrusted: bool, unlock: bool = False
) -> tuple[Disk, ...]:
    """Vet every image and its chain, note which ones are in use, refuse the same file twice.

    Raises what `imgtools.image.chain.resolve_disk` raises, and UsageError for a file that is
    named twice.
    """
    disks = tuple(_resolve(request, untrusted=untrusted, unlock=unlock) for request in requests)
    _refuse_twice(disks)
    return disks


def files_of_layers(layers: Iterable[ImageLayer]) -> list[Path]:
    """The files of each layer, its own first; a layer that is no file has none."""
    filed = (layer for layer in layers if layer.node is None)
    return [path for layer in filed for path in (layer.path, *layer.extents)]


def finish_interrupted(path: Path, *, untrusted: bool) -> Interrupted | None:
    """Finish or discard what an interrupted change left beside an image; None if nothing did.

    Raises what `imgtools.transaction.recovery.recover` raises.
    """
    from imgtools.transaction.recovery import recover

    def resolve(image: Path, image_format: str) -> Disk:
        return resolve_disk(DiskRequest(path=image, format=image_format), untrusted=untrusted)

    return recover(path, resolve)


def pending_notices(disks: Sequence[Disk]) -> list[Notice]:
    """A warning for every disk that is read through the overlay of an interrupted commit."""
    return [
        Notice(
            code="transaction.pending",
            message=f"{disk.name}: a commit was interrupted; what it was to write is shown here as "
            f"done -- imgtools recover {disk.name} finishes it",
        )
        for disk in disks
        if disk.pending
    ]


def refuse_pending(disk: Disk) -> None:
    """Raise RefusedError for a disk read through the overlay of an interrupted commit.

    That shows the disk, but not what else the image holds: its snapshots and bitmaps.
    """
    if disk.pending:
        raise RefusedError(
            f"{disk.name}: a commit was interrupted, so that only the disk can be read",
            hint=f"first: imgtools recover {disk.name}",
        )


def interrupted_notices(path: Path) -> list[Notice]:
    """A warning for an image that is shown as it lies there, when a change was interrupted.

    None while the one that makes the change is at work: it holds the image, which is told as well.
    """
    if not has_record(path):
        return []
    from imgtools.transaction.recovery import find_interrupted

    try:
        found = find_interrupted(path)
    except ImgtoolsError as error:
        return [Notice(code=error.code, message=error.message)]
    if found is None or found.action == "busy":
        return []
    if found.action == "finish":
        message = (
            f"{path}: a commit was interrupted; what is shown is the image half-way -- imgtools "
            f"recover {path} finishes it"
        )
        return [Notice(code="transaction.pending", message=message)]
    message = (
        f"{path}: a change ({found.command}) was interrupted, which left the image whole -- "
        f"imgtools recover {path} removes what is left of it"
    )
    return [Notice(code="image.interrupted", message=message)]


def _resolve(request: DiskRequest, *, untrusted: bool, unlock: bool) -> Disk:
    disk = _whole(request, untrusted=untrusted, unlock=unlock)
    files = files_of_layers(disk.layers)
    # A writer below the active layer (a running base) changes what we read just as well.
    return replace(disk, in_use=any(lock_state(path).writer for path in files))


def _whole(request: DiskRequest, *, untrusted: bool, unlock: bool) -> Disk:
    """The disk; one whose commit was interrupted is read through the overlay, which is whole."""
    pending = None
    if request.path is not None and has_record(request.path):
        from imgtools.transaction.recovery import pending_overlay

        pending = pending_overlay(request.path)
    if request.uri is not None and untrusted:
        from imgtools.appliance.remote import refuse_stranger

        refuse_stranger(request.uri, request.format)
    if pending is None:
        return resolve_disk(request, untrusted=untrusted, unlock=unlock)
    overlay, image_format = pending
    disk = resolve_disk(replace(request, format=image_format), untrusted=untrusted)
    return replace(through(overlay, disk), request=request, pending=True)


def through(overlay: Path, disk: Disk) -> Disk:
    """``disk`` as it is seen through an overlay that the appliance has written."""
    size = vet(overlay, "qcow2").virtual_size  # another one than the disk's under a resize
    top = ImageLayer(path=overlay, format="qcow2", virtual_size=size)
    return replace(disk, layers=(top, *disk.layers))


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
