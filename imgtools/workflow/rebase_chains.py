"""The chains of a rebase: the overlay as it is, its old parent, and the new one with its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ImageChainError,
    ImageUnsupportedError,
    ImgtoolsError,
    RefusedError,
    UntrustedReferenceError,
    UsageError,
)
from imgtools.image.chain import Link, follow_chain, refuse_fatal, resolve_disk, vet_parent
from imgtools.image.header import ImageHeader
from imgtools.image.rebase import FORMATS, LONGEST_NAME
from imgtools.image.reference import protocol_of, resolve_reference
from imgtools.model.disks import DiskRequest, ImageLayer
from imgtools.workflow.opening import files_of_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for; without a ``parent`` the overlay is to stand alone.

    ``unsafe``: only the header is to be written.
    """

    overlay: Path
    format: str | None = None
    parent: Path | None = None
    parent_format: str | None = None
    unsafe: bool = False
    dry_run: bool = False
    untrusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """The overlay as it is; ``old`` is None when what it rests on is missing."""

    top: Link
    old: tuple[ImageLayer, ...] | None
    why: ImgtoolsError | None
    new: tuple[ImageLayer, ...]

    @property
    def header(self) -> ImageHeader:
        return self.top.header

    @property
    def layer(self) -> ImageLayer:
        return self.top.layer()


def look(wish: Wish) -> Chains:
    """Vet everything.  Raises what vetting raises, RefusedError for a loop."""
    links = follow_chain(wish.overlay, wish.format, untrusted=wish.untrusted)
    top = next(links)
    refuse_fatal(top.header)
    if top.header.format not in FORMATS:
        raise ImageUnsupportedError(
            f"{wish.overlay}: no other backing file can be given to a {top.header.format} image",
            hint="copy it to qcow2 first: imgtools convert -O qcow2",
        )
    old: tuple[ImageLayer, ...] | None = None
    why: ImgtoolsError | None = None
    try:
        for link in (lower := list(links)):
            refuse_fatal(link.header)
        old = (top.layer(), *(link.layer() for link in lower))
    except (ImageChainError, UntrustedReferenceError) as error:
        why = error
    new = _new_chain(wish, top, old)
    return Chains(top=top, old=old, why=why, new=new)


def _new_chain(wish: Wish, top: Link, old: Sequence[ImageLayer] | None) -> tuple[ImageLayer, ...]:
    if wish.parent is None:
        return ()
    overlay, stated = wish.overlay, wish.parent_format
    if not wish.parent.exists():
        raise ImageChainError(
            f"{wish.parent}: no such image file", hint=_elsewhere(wish.parent, overlay)
        )
    for layer in (old or ())[1:]:
        # In the chain already, with the format that is stored there.
        if stated is None and layer.path.samefile(wish.parent):
            stated = layer.format
    if wish.parent.samefile(overlay):
        raise RefusedError(
            f"{overlay}: cannot rest on itself", hint="name another image as its parent"
        )
    vet_parent(wish.parent, stated, overlay)
    request = DiskRequest(path=wish.parent, format=stated)
    layers = resolve_disk(request, untrusted=wish.untrusted).layers
    status = top.header.identity
    for path in files_of_layers(layers):
        if (found := path.stat()) and (found.st_dev, found.st_ino) == status:
            raise RefusedError(
                f"{wish.parent}: rests on {overlay} itself: the chain would be a loop",
                hint="name an image that does not rest on the overlay",
            )
    return layers


def _elsewhere(parent: Path, overlay: Path) -> str:
    if not parent.is_absolute() and (beside := overlay.parent / parent).exists():
        return f"a name is taken from where you stand, not from the overlay: -b {beside}"
    return "check the name"


def stored_name(parent: Path, overlay: Path) -> bytes:
    """The name of ``parent`` for the header of ``overlay``: relative if it was given so.

    Raises UsageError for one that no header can hold.
    """
    name = str(parent)
    if not parent.is_absolute():
        real = Path(os.path.realpath(overlay)).parent
        target = Path(os.path.realpath(parent.absolute().parent)) / parent.name
        name = os.path.relpath(target, real)
    stored = os.fsencode(name)
    if protocol_of(stored) is not None:
        stored = b"./" + stored  # qemu would take what is before the colon for a protocol
    if not _means(stored, parent, overlay):
        stored = os.fsencode(parent.absolute())
    if len(stored) > LONGEST_NAME:
        raise UsageError(
            f"{parent}: the name has {len(stored)} bytes, a header holds {LONGEST_NAME}",
            hint="make a shorter one with a link",
        )
    return stored


def _means(stored: bytes, parent: Path, overlay: Path) -> bool:
    """Is it the same file by the name that the user used for the overlay, and by its real one?"""
    for place in (overlay, Path(os.path.realpath(overlay))):
        target = resolve_reference(stored, place, "backing file")
        if not target.exists() or not target.samefile(parent):
            return False
    return True
