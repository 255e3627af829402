"""The persistent dirty bitmaps of an image: what has been written since, for incremental backup."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgtools.errors import ImageError, RefusedError, UsageError
from imgtools.image import bitmaps
from imgtools.image.chain import refuse_fatal, resolve_disk
from imgtools.image.header import Bitmap, ImageHeader
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest
from imgtools.nodes import Node, chain_node
from imgtools.workflow.held import held
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import files_of_layers
from imgtools.workflow.qcow2 import Place, opened

LONGEST_NAME = 1023
"""Bytes (BME_MAX_NAME_SIZE of block/qcow2-bitmap.c)."""


def listed(place: Place) -> tuple[Bitmap, ...]:
    """The bitmaps that the image's header names; also of an image in use."""
    header = vet(place.image, place.format)
    refuse_fatal(header)
    return header.bitmaps


def add(place: Place, name: str, *, granularity: int | None, disabled: bool) -> Bitmap:
    """Add an empty bitmap.  Raises UsageError and RefusedError for bad names."""
    if not name or not name.isprintable():
        raise UsageError("the name of a bitmap is made of characters that can be seen")
    if len(name.encode()) > LONGEST_NAME:
        raise UsageError(f"the name of a bitmap has at most {LONGEST_NAME} bytes")
    options = ["--add"]
    if granularity is not None:
        options += ["-g", str(granularity)]
    if disabled:
        options.append("--disable")
    with opened(place, "bitmaps") as image:
        if any(one.name == name for one in image.header.bitmaps):
            raise RefusedError(
                f"{place.image}: has a bitmap {name} already", hint="take another name"
            )
        image.do(lambda node: bitmaps.change(node, name, options))
    return find(vet(place.image, "qcow2"), name)


def change(place: Place, name: str, verb: str) -> Bitmap:
    """Do ``verb`` (``remove``, ``clear``, ``enable``, ``disable``) to a bitmap.

    Returns the bitmap after it, or before its removal.
    """
    with opened(place, "bitmaps") as image:
        before = find(image.header, name)
        if verb != "remove":
            _refuse_unfinished(image.header, before)
        image.do(lambda node: bitmaps.change(node, name, [f"--{verb}"]))
    return before if verb == "remove" else find(vet(place.image, "qcow2"), name)


def merge(place: Place, name: str, source: str, other: Path | None) -> Bitmap:
    """Add to the bitmap ``name`` what ``source`` has marked, a bitmap of ``other`` if given.

    Raises RefusedError for a disk of another size.
    """
    same = other is None or (
        other.exists() and place.image.exists() and place.image.samefile(other)
    )
    with opened(place, "bitmaps") as image, contextlib.ExitStack() as stack:
        _refuse_unfinished(image.header, find(image.header, name))
        node: Node | None = None
        header = image.header
        if not same and other is not None:
            node, header = stack.enter_context(_source(other, untrusted=place.untrusted))
            if header.virtual_size != image.header.virtual_size:
                raise RefusedError(
                    f"{other}: has {header.virtual_size} bytes, and {place.image} "
                    f"{image.header.virtual_size}",
                    hint="bitmaps fit disks of the same size only",
                )
        _refuse_unfinished(header, find(header, source))
        options = ["--merge", source]
        image.do(lambda target: bitmaps.change(target, name, options, node))
    return find(vet(place.image, "qcow2"), name)


@contextlib.contextmanager
def _source(image: Path, *, untrusted: bool) -> Iterator[tuple[Node, ImageHeader]]:
    layers = resolve_disk(DiskRequest(path=image), untrusted=untrusted).layers
    with held([], files_of_layers(layers)), private_folder() as folder:
        yield chain_node(layers, folder, 1), vet(image, layers[0].format)


def find(header: ImageHeader, name: str) -> Bitmap:
    """The bitmap of that name.  Raises ImageError."""
    for one in header.bitmaps:
        if one.name == name:
            return one
    hint = f"there are: {_names(header.bitmaps)}" if header.bitmaps else "it holds none at all"
    raise ImageError(f"{header.path}: holds no bitmap {name}", hint=hint)


def _names(found: Sequence[Bitmap]) -> str:
    return ", ".join(one.name for one in found)


def _refuse_unfinished(header: ImageHeader, bitmap: Bitmap) -> None:
    if "in-use" in bitmap.flags:
        raise RefusedError(
            f"{header.path}: the bitmap {bitmap.name} was not saved by the guest that died",
            hint="it is of no use any more: remove it, and make a full backup",
        )
