"""Follow a backing chain under the rules of trust, and say which disk is safe to open.

A reference is followed only to something that is itself an image (`plausible`), only by a plain
file name (`reference`), and for an untrusted image only inside the image's own folder.  Every
file is vetted before any other program sees it, and every layer gets a certain format, so that
nothing is ever probed again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imgtools.errors import (
    EncryptedError,
    ImageChainError,
    ImageError,
    ImageNotFoundError,
    ImageTruncatedError,
    ImageUnreadableError,
    ImageUnsupportedError,
    ImgtoolsError,
    SnapshotNotFoundError,
    UntrustedReferenceError,
)
from imgtools.image.header import Extent, ImageHeader, Problem
from imgtools.image.plausible import host_uses_device, looks_like_disk, looks_like_flat_extent
from imgtools.image.reference import resolve_reference
from imgtools.image.signature import VMDK_SESPARSE
from imgtools.image.source import Source, open_source
from imgtools.image.vet import vet, vet_source
from imgtools.model.disks import KNOWN_FORMATS, Disk, DiskRequest, ImageLayer

MAX_DEPTH = 256
MAX_EXTENTS = 4096

_FORMAT_NAMES = {"vhd": "vpc", "host_device": "raw", "file": "raw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One followed image of a chain: its vetted header and the files it rests on."""

    header: ImageHeader
    extents: tuple[Path, ...] = ()

    def layer(self) -> ImageLayer:
        """The link as other rooms need it."""
        kind = self.header.format
        size = self.header.virtual_size
        # A LUKS container is a raw disk whose one volume is encrypted: the engines open it by
        # --key as they do any other LUKS volume.
        if kind == "luks":
            kind, size = "raw", (self.header.file_size + 511) // 512 * 512
        return ImageLayer(
            path=self.header.path.absolute(),
            format=kind,
            virtual_size=size,
            extents=self.extents,
        )


def resolve_disk(request: DiskRequest, *, untrusted: bool, unlock: bool = False) -> Disk:
    """Vet the image that ``request`` names and everything it rests on.

    Raises ImageError (or a finer class) for a bad layer, ImageChainError for a missing, looping
    or damaged member, UntrustedReferenceError for a reference that may not be followed (to a
    file that is no image, by a protocol, or out of an untrusted image's folder), and
    SnapshotNotFoundError.  ``unlock``: the caller has the key of images that are encrypted.  A
    remote disk comes back with its ``uri`` and no layers.
    """
    if request.path is None:
        return Disk(request=request, uri=request.uri)
    links = []
    for link in follow_chain(request.path, request.format, untrusted=untrusted):
        refuse_fatal(link.header, unlock=unlock)
        links.append(link)
    layers = [link.layer() for link in links]
    if request.snapshot is not None:
        layers[0] = _at_snapshot(links[0].header, layers[0], request.snapshot)
    return Disk(request=request, layers=tuple(layers))


def _at_snapshot(header: ImageHeader, layer: ImageLayer, name: str) -> ImageLayer:
    """The layer as it was when the internal snapshot ``name`` (or of that id) was made."""
    by_id = [snapshot for snapshot in header.snapshots if snapshot.id == name]
    found = by_id or [snapshot for snapshot in header.snapshots if snapshot.name == name]
    if not found:
        known = ", ".join(snapshot.name or snapshot.id for snapshot in header.snapshots)
        raise SnapshotNotFoundError(
            f"{header.path}: holds no internal snapshot {name}",
            hint=f"there are: {known}" if known else "it holds none at all",
        )
    snapshot = found[0]
    return replace(
        layer,
        virtual_size=snapshot.virtual_size or layer.virtual_size,
        snapshot_table=(snapshot.l1_offset, snapshot.l1_entries),
    )


def refuse_fatal(header: ImageHeader, *, unlock: bool = False) -> None:
    """Raise ImageError with the text of the header's first fatal problem, if any.

    An image whose format encrypts it raises EncryptedError, unless the caller will ``unlock`` it:
    --key opens LUKS volumes, and no engine hands a key to the image format.
    """
    if header.fatal is not None:
        raise error_of(header.path, header.fatal)
    if header.encrypted and header.format != "luks" and not unlock:
        raise EncryptedError(
            f"{header.path}: the {header.format} image itself is encrypted ({header.encryption})",
            hint="compare, map, measure and convert take its key from a file; for all else make "
            "a plain copy first: imgtools convert --source-key-file FILE",
        )


def error_of(path: Path, problem: Problem) -> ImageError:
    """The exception that says ``problem`` of the image ``path``."""
    kind = problem.code.rpartition(".")[2]
    message = f"{path}: {problem.message}"
    if kind in ("truncated", "l1-beyond"):
        return ImageTruncatedError(message, hint="copy or download the image again")
    if kind in ("unsupported", "feature", "crypt", "compression"):
        return ImageUnsupportedError(message, hint="convert it with the tool that made it")
    return ImageError(message, hint=f"see what is left of it: imgtools info {path}")


def follow_chain(path: Path, image_format: str | None, *, untrusted: bool) -> Iterator[Link]:
    """Yield the links of the chain, the active layer first.

    A broken link raises when it is reached, so that a caller may keep what came before.  Fatal
    problems are left to the caller; the references of such a layer are followed all the same.
    """
    folder = path.absolute().parent.resolve()
    seen: dict[tuple[int, int], Path] = {}
    header: ImageHeader | None = vet(path, image_format)
    while header is not None:
        if len(seen) >= MAX_DEPTH:
            raise ImageChainError(
                f"{path}: its backing chain has more than {MAX_DEPTH} images",
                hint="flatten it with qemu-img convert",
            )
        if header.identity in seen:
            raise ImageChainError(
                f"{path}: its backing chain is a loop: {header.path} is reached twice",
                hint="one of the images names the wrong backing file; see qemu-img rebase -u",
            )
        seen[header.identity] = header.path
        trust = _Trust(folder=folder, untrusted=untrusted)
        yield Link(header=header, extents=_extents(header, trust, seen))
        header = _backing(header, trust)


@dataclass(frozen=True, slots=True)
class _Trust:
    folder: Path
    untrusted: bool

    def check(self, target: Path, image: Path, what: str) -> None:
        """Refuse a target outside the folder of an untrusted image.  Opens nothing."""
        if not self.untrusted:
            return
        real = Path(os.path.realpath(target))
        if not real.is_relative_to(self.folder):
            raise UntrustedReferenceError(
                f"{image}: its {what} {target} is outside the image's folder",
                hint="leave out --untrusted if you know where the image comes from",
            )


def _backing(header: ImageHeader, trust: _Trust) -> ImageHeader | None:
    """Vet what the header names as backing file; None at the base."""
    if header.backing_file is None:
        if header.needs_parent:
            raise ImageChainError(
                f"{header.path}: a differencing image that does not say where its parent is",
                hint="merge it with the tool that made it, or convert both",
            )
        return None
    what = "backing file"
    target = resolve_reference(header.backing_file, header.path, what)
    trust.check(target, header.path, what)
    return _vet_member(target, _stated_format(header), header.path, what)


def _stated_format(header: ImageHeader) -> str | None:
    if header.backing_format is None:
        return None
    name = _FORMAT_NAMES.get(header.backing_format, header.backing_format)
    if name not in KNOWN_FORMATS:
        raise ImageChainError(
            f"{header.path}: its backing file is said to be of the unknown format {name!r}",
            hint=f"correct it with: qemu-img rebase -u -b NAME -F FORMAT {header.path}",
        )
    return name


def _vet_member(target: Path, stated: str | None, image: Path, what: str) -> ImageHeader:
    try:
        with open_source(target) as source:
            header = vet_source(source, stated)
            disk_like = header.format != "raw" or looks_like_disk(source)
            in_host_use = host_uses_device(source)
    except ImageNotFoundError:
        raise ImageChainError(
            f"{image}: its {what} {target} does not exist",
            hint="bring it back to that place, or correct the name: "
            f"qemu-img rebase -u -b NEW -F FORMAT {image}",
        ) from None
    except ImgtoolsError as error:
        raise ImageChainError(
            f"{image}: its {what} is not usable: {error.message}", hint=error.hint
        ) from None
    if in_host_use:
        raise UntrustedReferenceError(
            f"{image}: its {what} {target} is a device that this host itself uses",
            hint="an image may not show the host's own disk",
        )
    if not disk_like:
        raise UntrustedReferenceError(
            f"{image}: its {what} {target} is not a disk image",
            hint="the image may be an attack on this host; do not open it",
        )
    return header


def _extents(
    header: ImageHeader, trust: _Trust, seen: dict[tuple[int, int], Path]
) -> tuple[Path, ...]:
    """Vet the further files that belong to this layer, and return their absolute paths."""
    if len(header.extents) > MAX_EXTENTS:
        raise ImageError(f"{header.path}: {len(header.extents)} extents are beyond any sane number")
    paths: list[Path] = []
    if header.data_file is not None:
        what = "external data file"
        # qemu would take a relative one from the working directory; openers get our path.
        target = resolve_reference(header.data_file, header.path, what)
        trust.check(target, header.path, what)
        _once(_vet_member(target, "raw", header.path, what), header.path, seen)
        paths.append(target)
    for extent in header.extents:
        if extent.file is not None:
            target = _extent(header, extent, trust)
            if target not in paths:
                paths.append(target)
    return tuple(paths)


def _extent(header: ImageHeader, extent: Extent, trust: _Trust) -> Path:
    """Vet one file that a VMDK descriptor names."""
    target = resolve_reference(extent.file or b"", header.path, "extent")
    trust.check(target, header.path, "extent")
    try:
        with open_source(target) as source:
            if source.identity == header.identity:
                raise ImageChainError(f"{header.path}: its extent {target} is the image itself")
            good = _extent_fits(source, extent)
    except ImageNotFoundError:
        raise ImageChainError(
            f"{header.path}: its extent {target} does not exist",
            hint="the descriptor and its extents must stay together",
        ) from None
    except (ImageUnreadableError, ImageTruncatedError) as error:
        raise ImageChainError(f"{header.path}: its extent is not usable: {error.message}") from None
    if not good:
        raise UntrustedReferenceError(
            f"{header.path}: its extent {target} is no extent of a disk image, or is too short",
            hint="the image may be an attack on this host; do not open it",
        )
    return target


def _extent_fits(source: Source, extent: Extent) -> bool:
    if extent.kind in ("FLAT", "VMFS"):
        return looks_like_flat_extent(source, extent.offset, extent.offset + extent.size)
    if extent.kind == "SESPARSE":
        return source.peek(0, 8) == VMDK_SESPARSE
    header = vet_source(source, "vmdk")
    # A sparse extent that is itself a descriptor would name further files.
    return not header.extents and header.fatal is None


def _once(member: ImageHeader, image: Path, seen: dict[tuple[int, int], Path]) -> None:
    if member.identity in seen:
        raise ImageChainError(f"{image}: it names {member.path}, which the chain holds already")
    seen[member.identity] = member.path


def vet_parent(target: Path, stated: str | None, image: Path) -> ImageHeader:
    """Vet what is to become the backing file of ``image``, by the rules for one that is it.

    Raises what `resolve_disk` raises for a backing file.
    """
    return _vet_member(target, stated, image, "new backing file")
