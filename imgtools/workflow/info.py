"""Say everything about an image that can be said without opening the guest.

Unlike `resolve_disks`, a broken image does not end the task: what its header says, and the part
of the chain that could be followed, is the answer, with the error beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imgtools.errors import ImgtoolsError, NoDomainError
from imgtools.image.chain import Link, error_of, follow_chain
from imgtools.image.header import ImageHeader
from imgtools.image.locks import LockState, lock_state
from imgtools.image.qemu import QemuInfo, info
from imgtools.model.disks import DiskRequest
from imgtools.model.notices import Notice
from imgtools.workflow.opening import interrupted_notices
from imgtools.workflow.selection import DiskArguments, targets


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """One image of the chain: vetted facts, who uses it, and qemu-img's view of it.

    ``qemu`` is None when qemu-img was not asked (the image must not be opened) or failed.
    """

    header: ImageHeader
    extents: tuple[Path, ...] = ()
    locks: LockState = field(default_factory=LockState)
    qemu: QemuInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """What is known of one disk: the backing chain, the active layer first.

    ``error`` is what would stop any other command on this image, None for a good one.  A remote
    disk (``remote``) has no layers, only its format and its size in bytes, if qemu-img can tell.
    """

    name: str
    remote: bool = False
    remote_format: str | None = None
    remote_size: int | None = None
    layers: tuple[LayerReport, ...] = ()
    error: ImgtoolsError | None = None
    warnings: tuple[Notice, ...] = ()

    @property
    def format(self) -> str | None:
        """The format of the active layer, None if that cannot be told."""
        return self.layers[0].header.format if self.layers else self.remote_format

    @property
    def virtual_size(self) -> int | None:
        """The size in bytes that a guest sees, None if that cannot be told."""
        return self.layers[0].header.virtual_size if self.layers else self.remote_size

    @property
    def in_use(self) -> bool:
        """True when another process may be writing to any layer."""
        return any(layer.locks.writer for layer in self.layers)


def describe(arguments: DiskArguments) -> Iterator[ImageReport]:
    """Describe every image that the user pointed at, one by one.

    Raises UsageError when nothing was named, NoDomainError and LibvirtError; never for what is
    wrong with an image, see `ImageReport.error`.
    """
    for target in targets(arguments):
        notices = target.notices
        if not target.requests:
            why = notices[0].message if notices else f"{target.name}: no disks"
            raise NoDomainError(why, hint=f"see: virsh domblklist {target.name}")
        for request in target.requests:
            report = describe_image(request, untrusted=arguments.untrusted)
            yield replace(report, warnings=(*notices, *report.warnings))
            notices = ()


def describe_image(request: DiskRequest, *, untrusted: bool = False) -> ImageReport:
    """Describe one image and its backing chain as far as it can be followed."""
    if request.path is None:
        return _describe_remote(request, untrusted=untrusted)
    links: list[Link] = []
    error: ImgtoolsError | None = None
    try:
        for link in follow_chain(request.path, request.format, untrusted=untrusted):
            links.append(link)
            if link.header.fatal is not None:
                error = error_of(link.header.path, link.header.fatal)
                break
    except ImgtoolsError as caught:
        error = caught
    warnings = interrupted_notices(request.path)
    layers = tuple(_layer(link, warnings) for link in links)
    return ImageReport(name=request.name, layers=layers, error=error, warnings=tuple(warnings))


def _describe_remote(request: DiskRequest, *, untrusted: bool) -> ImageReport:
    """Ask qemu-img, which has `imgtools.image.qemu.TIMEOUT` for an answer."""
    from imgtools.appliance.remote import shown
    from imgtools.workflow.images import private_folder
    from imgtools.workflow.unfiled import open_unfiled

    with private_folder() as folder:
        try:
            disk = open_unfiled(request, folder, untrusted=untrusted)
        except ImgtoolsError as error:
            return ImageReport(name=shown(request.name), remote=True, error=error)
    return ImageReport(
        name=disk.name,
        remote=True,
        remote_format=disk.layers[0].format,
        remote_size=disk.layers[0].virtual_size,
    )


def _layer(link: Link, warnings: list[Notice]) -> LayerReport:
    header = link.header
    warnings.extend(
        Notice(code=problem.code, message=f"{header.path}: {problem.message}")
        for problem in header.problems
        if not problem.fatal
    )
    locks = _locks(link, warnings)
    if locks.writer:
        message = f"{header.path}: in use by another process; what is shown may be inconsistent"
        warnings.append(Notice(code="image.in-use", message=message))
    return LayerReport(
        header=header, extents=link.extents, locks=locks, qemu=_qemu_info(header, warnings)
    )


def _locks(link: Link, warnings: list[Notice]) -> LockState:
    """The state of the layer's file, or of the first of its extents that is in use."""
    try:
        states = [lock_state(path) for path in (link.header.path, *link.extents)]
    except ImgtoolsError as error:
        warnings.append(Notice(code=error.code, message=error.message))
        return LockState()
    return max(states, key=lambda state: (state.writer, state.held))


def _qemu_info(header: ImageHeader, warnings: list[Notice]) -> QemuInfo | None:
    if header.fatal is not None:
        return None
    try:
        return info(header.path, header.format)
    except ImgtoolsError as error:
        warnings.append(Notice(code=error.code, message=error.message))
        return None
