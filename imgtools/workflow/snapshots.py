"""Internal snapshots of an image: seen, made, taken back to, deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from imgtools.errors import ImgtoolsError, RefusedError, SnapshotNotFoundError, UsageError
from imgtools.image import snapshots
from imgtools.image.chain import refuse_fatal
from imgtools.image.header import ImageHeader, Snapshot
from imgtools.image.vet import vet
from imgtools.model.notices import Notice
from imgtools.workflow.dependents import domains, overlays, refuse_dependents, refuse_saved
from imgtools.workflow.qcow2 import Place, Qcow2, opened

LONGEST_NAME = 255
"""Bytes; qemu cuts off what is longer (QEMUSnapshotInfo)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """``way_back``: the name of the snapshot that holds the state before; None without one."""

    snapshot: Snapshot
    way_back: str | None
    virtual_size: int
    warnings: tuple[Notice, ...] = ()


def listed(place: Place) -> tuple[Snapshot, ...]:
    """The snapshots that the image's header names; also of an image in use."""
    header = vet(place.image, place.format)
    refuse_fatal(header)
    return header.snapshots


def create(place: Place, name: str) -> Snapshot:
    """Save the present state under ``name``.  Raises UsageError and RefusedError for bad names."""
    _refuse_bad(name)
    with opened(place, "snapshots") as image:
        if any(name in (one.name, one.id) for one in image.header.snapshots):
            raise RefusedError(
                f"{place.image}: has a snapshot {name} already",
                hint="take another name, or delete that one first",
            )
        image.do(lambda node: snapshots.create(node, name))
    return _find(vet(place.image, "qcow2"), name)


def delete(place: Place, name: str) -> Snapshot:
    """Delete the snapshot of that id or name."""
    with opened(place, "snapshots") as image:
        found = _find(image.header, name)
        first = next(one for one in image.header.snapshots if one.name == found.name)
        if first.id != found.id:
            raise RefusedError(
                f"{place.image}: {found.name!r} is the name of {first.id} too, and qemu-img "
                "deletes by name",
                hint="delete that one first, or copy what you need with imgtools convert",
            )
        image.do(lambda node: snapshots.delete(node, found))
    return found


def apply(
    place: Place, name: str, *, way_back: bool = True, break_overlays: bool = False
) -> Applied:
    """Make a snapshot the present state, after that has become a snapshot itself.

    Raises RefusedError where overlays or domains rely on the image, or its size would change
    under its bitmaps.  A killed run leaves the old state or the new one, and the way back.
    """
    with opened(place, "snapshots") as image:
        found = _find(image.header, name)
        refuse_saved(image.path)
        broken = [*overlays([image.path]), *domains([image.path], through=image.path)]
        if not break_overlays:
            refuse_dependents(place.image, broken, "going back")
        size = found.virtual_size or image.header.virtual_size
        if size != image.header.virtual_size and image.header.bitmaps:
            raise RefusedError(
                f"{place.image}: has bitmaps, which do not fit the snapshot's size",
                hint="remove them first: imgtools image bitmap",
            )
        back = _saved(image) if way_back else None
        if way_back and back is None:
            back = _way_back_name(found, image.header.snapshots)
            image.do(lambda node: snapshots.create(node, back or ""))
        image.do(lambda node: snapshots.apply(node, found))
        notices = tuple(_notices(place, found, image.header.virtual_size, broken))
    return Applied(snapshot=found, way_back=back, virtual_size=size, warnings=notices)


def _notices(place: Place, found: Snapshot, size: int, broken: Sequence[str]) -> Iterator[Notice]:
    if found.virtual_size not in (None, size):
        message = f"{place.image}: has {found.virtual_size} bytes now, as it had then, not {size}"
        yield Notice(code="snapshot.size", message=message)
    if found.vm_state_size:
        message = f"{found.name}: its memory is not restored, only the disk"
        yield Notice(code="snapshot.memory", message=message)
    for name in broken:
        message = f"{name}: does not show what it did any more"
        yield Notice(code="snapshot.broken", message=message)


def _saved(image: Qcow2) -> str | None:
    """The name of a snapshot that is the present state (the way back of a killed run)."""
    for one in reversed(image.header.snapshots):
        if one.name and snapshots.shows(image.layer, one):
            return one.name
    return None


def _find(header: ImageHeader, name: str) -> Snapshot:
    """The snapshot of that id or name.  Raises SnapshotNotFoundError, RefusedError for several."""
    found = [one for one in header.snapshots if name in (one.id, one.name)]
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise RefusedError(
            f"{header.path}: {name} means several snapshots (ids {ids})", hint="name one by its id"
        )
    if not found:
        known = ", ".join(one.name or one.id for one in header.snapshots)
        raise SnapshotNotFoundError(
            f"{header.path}: holds no internal snapshot {name}",
            hint=f"there are: {known}" if known else "it holds none at all",
        )
    return found[0]


def _refuse_bad(name: str) -> None:
    error: ImgtoolsError | None = None
    if not name or not name.isprintable():
        error = UsageError("the name of a snapshot is made of characters that can be seen")
    elif name.isdigit():
        error = UsageError(f"{name}: would be taken for an id", hint="add a letter")
    elif len(name.encode()) > LONGEST_NAME:
        error = UsageError(f"the name of a snapshot has at most {LONGEST_NAME} bytes")
    if error is not None:
        raise error


def _way_back_name(snapshot: Snapshot, known: Sequence[Snapshot]) -> str:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = snapshot.name if snapshot.name.isprintable() else snapshot.id
    name = f"before-{target[:50]}-{now}"
    number, free = 2, name
    while any(free in (one.name, one.id) for one in known):
        free, number = f"{name}-{number}", number + 1
    return free
