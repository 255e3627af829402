"""Who else relies on an image: overlays beside it, domains of libvirt, snapshots inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imgtools.errors import ImgtoolsError, RefusedError
from imgtools.image.chain import follow_chain
from imgtools.image.children import overlays_of
from imgtools.image.vet import vet
from imgtools.model.disks import ImageLayer


def overlays(
    images: Iterable[Path], *, but: Iterable[Path] = (), beside: Iterable[Path] = ()
) -> Iterator[str]:
    """The overlays that rest on ``images``, but for some: in their own folders, and ``beside``."""
    known = {os.path.realpath(path) for path in but}
    more = {path.parent.resolve() for path in beside}
    for image in images:
        for folder in sorted(more | {image.parent.resolve()}):
            for path in overlays_of(image, folder):
                if os.path.realpath(path) not in known:
                    yield str(path)


def domains(images: Iterable[Path], *, through: Path) -> Iterator[str]:
    """The domains of libvirt with a disk that rests on ``images``, not by way of ``through``."""
    from imgtools.domain.users import known_domains

    overlay = os.path.realpath(through)
    changing = {os.path.realpath(image) for image in images}
    for domain in known_domains():
        for disk in domain.disks:
            if disk.path is None:
                continue
            below = _chain_of(Path(disk.path), disk.format)
            if overlay not in below and changing & below:
                yield f"domain {domain.name}"
                break


def refuse_saved(image: Path) -> None:
    """Raise RefusedError for a domain whose saved memory knows what is on ``image`` now."""
    from imgtools.domain.users import known_domains

    real = os.path.realpath(image)
    for domain in known_domains():
        if domain.saved and any(
            disk.path is not None and os.path.realpath(disk.path) == real for disk in domain.disks
        ):
            raise RefusedError(
                f"domain {domain.name} has a saved state: its memory would not fit a changed disk",
                hint=f"start and shut it down, or: virsh managedsave-remove {domain.name}",
            )


def snapshots(layers: Iterable[ImageLayer]) -> Iterator[str]:
    """The internal snapshots of ``layers``, which rest on what is below as well."""
    for layer in layers:
        if layer.format == "qcow2":
            for snapshot in vet(layer.path, layer.format).snapshots:
                yield f"snapshot {snapshot.name or snapshot.id} in {layer.path}"


def refuse_dependents(image: Path, found: Sequence[str], what: str) -> None:
    """Raise RefusedError if there are any; ``what`` would break them (``a commit``)."""
    if found:
        shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise RefusedError(
            f"{image}: {what} would break what else relies on it: {shown}",
            hint="rebase or flatten these first, or --break-overlays if they are not needed",
        )


def _chain_of(image: Path, image_format: str | None) -> set[str]:
    paths = set()
    try:
        for link in follow_chain(image, image_format, untrusted=False):
            paths.add(os.path.realpath(link.header.path))
    except (ImgtoolsError, OSError):
        pass  # as far as it can be followed
    return paths
