"""Write an overlay into an image that it rests on, unless that would break others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ImageChainError,
    ReadOnlyError,
    RefusedError,
    SpaceError,
    ToolError,
    UsageError,
)
from imgtools.image.chain import resolve_disk
from imgtools.image.inplace import mend_leaks, space_error, without_nodes
from imgtools.image.job import Report, silent
from imgtools.image.merge import commit_layers
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest, ImageLayer
from imgtools.model.notices import Notice
from imgtools.transaction.space import free
from imgtools.workflow.dependents import domains, overlays, refuse_dependents, snapshots
from imgtools.workflow.held import held, refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import files_of_layers, finish_interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for: without a ``base`` the overlay's own backing file.

    ``keep``: the overlay is left as it is, and not emptied.
    """

    overlay: Path
    format: str | None = None
    base: Path | None = None
    keep: bool = False
    dry_run: bool = False
    break_overlays: bool = False
    untrusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What was done, or would be.

    ``grown_to``: the new size of a base that was smaller, in bytes.  ``stale`` are the images
    between overlay and base, ``broken`` the other users of what has changed (paths, and names of
    domains): none of them shows what it did.
    """

    overlay: Path
    base: Path
    base_format: str
    done: bool
    emptied: bool
    grown_to: int | None
    stale: tuple[Path, ...]
    broken: tuple[str, ...]
    warnings: tuple[Notice, ...]


def commit_overlay(wish: Wish, report: Report = silent) -> Committed:
    """Do what ``wish`` says.

    Raises RefusedError and its kin for images in use or with other users, or too little space;
    what vetting raises; UsageError for a base that is not in the chain; ToolError.  What was
    interrupted shows the same through the overlay, and is done again.
    """
    finish_interrupted(wish.overlay, untrusted=wish.untrusted)
    layers, base = _look(wish)
    finish_interrupted(layers[base].path, untrusted=wish.untrusted)
    refuse_running(layer.path for layer in layers[: base + 1])
    changing = [*files_of_layers(layers[:1]), *_opened_by_us(layers[base])]
    with held(changing, _unchanged(layers, base)) as holds:
        layers, base = _look(wish)  # what was vetted before the lock may have been another file
        broken = _broken(wish, layers, base)
        _check_space(layers, base)
        empty = base == 1 and not wish.keep
        if not wish.dry_run:
            with private_folder() as folder:
                _write(layers, base, folder, report, empty=empty)
            for hold in holds:
                hold.sync()
    return _committed(wish, layers, base, broken)


def _committed(
    wish: Wish, layers: Sequence[ImageLayer], base: int, broken: Sequence[str]
) -> Committed:
    largest = max(layer.virtual_size for layer in layers[:base])
    return Committed(
        overlay=wish.overlay,
        base=layers[base].path,
        base_format=layers[base].format,
        done=not wish.dry_run,
        emptied=base == 1 and not wish.keep,
        grown_to=largest if largest > layers[base].virtual_size else None,
        stale=tuple(layer.path for layer in layers[1:base]),
        broken=tuple(broken),
        warnings=tuple(_warnings(layers, base, broken)),
    )


def _look(wish: Wish) -> tuple[Sequence[ImageLayer], int]:
    """The chain, and which of it is the base."""
    request = DiskRequest(path=wish.overlay, format=wish.format)
    layers = resolve_disk(request, untrusted=wish.untrusted).layers
    if len(layers) < 2:
        raise ImageChainError(
            f"{wish.overlay}: rests on no other image, so that there is nothing to write it into",
            hint="imgtools info shows what an image rests on",
        )
    if wish.base is None:
        return layers, 1
    for index, layer in enumerate(layers[1:], 1):
        if wish.base.exists() and layer.path.samefile(wish.base):
            _refuse_short(layers, index)
            return layers, index
    below = ", ".join(str(layer.path) for layer in layers[1:])
    raise UsageError(f"{wish.base}: {wish.overlay} does not rest on it", hint=f"below are: {below}")


def _refuse_short(layers: Sequence[ImageLayer], base: int) -> None:
    """A short image in the middle hides what a longer base has behind its end."""
    for layer in layers[1:base]:
        if layer.virtual_size < min(layers[0].virtual_size, layers[base].virtual_size):
            raise RefusedError(
                f"{layer.path}: is smaller than the images above and below it",
                hint="commit one layer at a time: leave out -b",
            )


def _opened_by_us(layer: ImageLayer) -> list[Path]:
    """The files that qemu opens without locks; extents of a VMDK it locks itself."""
    return files_of_layers([layer]) if layer.format == "qcow2" else [layer.path]


def _unchanged(layers: Sequence[ImageLayer], base: int) -> list[Path]:
    return files_of_layers([*layers[1:base], *layers[base + 1 :]])


def _broken(wish: Wish, layers: Sequence[ImageLayer], base: int) -> list[str]:
    """Who else relies on what changes.  Raises RefusedError unless that is allowed."""
    chain = [layer.path for layer in layers[:base]]
    changing = [layer.path for layer in layers[1 : base + 1]]
    overlay = layers[0].path
    found = [
        *overlays(changing, but=chain, beside=[overlay]),
        *domains(changing, through=overlay),
        *snapshots(layers[:base]),
    ]
    found = list(dict.fromkeys(found))
    if not wish.break_overlays:
        refuse_dependents(layers[base].path, found, "a commit")
    return found


def _check_space(layers: Sequence[ImageLayer], base: int) -> None:
    """Raise SpaceError if the base may not be able to take what is above it.

    The bound is from above: what is overwritten in place needs no space.
    """
    image = layers[base]
    status = image.path.stat()
    whole = image.format == "raw" and status.st_blocks * 512 >= status.st_size
    if image.path.is_block_device() or whole:
        return
    needed = sum(path.stat().st_blocks * 512 for path in files_of_layers(layers[:base]))
    left = free(image.path.parent)
    if left < needed:
        raise SpaceError(
            f"{image.path}: may grow by {needed >> 20} MiB, and {left >> 20} MiB are free in "
            f"{image.path.parent}",
            hint="free some space there; nothing was changed",
        )


def _write(
    layers: Sequence[ImageLayer], base: int, folder: Path, report: Report, *, empty: bool
) -> None:
    image, overlay = layers[base].path, layers[0].path
    if not os.access(image, os.W_OK):
        raise ReadOnlyError(f"{image}: may not be written", hint="mend its permissions")
    for layer in (layers[0], layers[base]):
        mend_leaks(layer, folder)
    try:
        commit_layers(layers, base, folder, report, empty=empty)
    except ToolError as error:
        again = f"the disk is whole as seen through {overlay}; do the same again"
        if space_error(error):
            raise SpaceError(
                f"{image}: the storage is full, and the commit stopped half-way",
                hint=f"free some space; {again}",
            ) from error
        raise ToolError(f"{image}: {without_nodes(error.message)}", hint=again) from error


def _warnings(layers: Sequence[ImageLayer], base: int, broken: Sequence[str]) -> Iterator[Notice]:
    for layer in layers[1:base]:
        yield Notice(
            code="commit.stale",
            message=f"{layer.path}: shows nothing useful any more, as the base has changed below",
        )
    for name in broken:
        yield Notice(code="commit.broken", message=f"{name}: does not show what it did any more")
    if layers[0].format == "qcow2" and vet(layers[0].path, "qcow2").bitmaps:
        yield Notice(
            code="commit.bitmaps",
            message=f"{layers[0].path}: its bitmaps stay in the overlay",
        )
