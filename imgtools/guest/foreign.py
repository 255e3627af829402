"""Systems that are not Linux: what libguestfs says of them, as our records.

Windows will get an inspection of its own; until then this is where its answers come from.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from imgtools.guest.inspection import (
    Application,
    GuestFilesystem,
    Inspection,
    Mountpoint,
    WindowsDetails,
)
from imgtools.guest.packages.application import Collection
from imgtools.guest.roots import Scan
from imgtools.model.foreign import ForeignGuest
from imgtools.model.notices import Notice
from imgtools.model.storage import Filesystem

_APPLICATION_TEXTS = (
    *("name", "display_name", "version", "release", "arch", "install_path", "publisher", "url"),
    *("source_package", "summary", "description"),
)


@runtime_checkable
class ForeignInspector(Protocol):
    """An engine that can ask libguestfs.  Asking unmounts everything."""

    def inspect_foreign(self) -> list[ForeignGuest]:
        """The guests that are not Linux."""


def inspect_foreign(scan: Scan, *, applications: bool) -> list[Inspection]:
    """Inspect the scan's foreign roots; must come before any other use of mounted trees.

    On an engine that cannot, or for a root that libguestfs does not see, only its type is told.
    """
    if not scan.foreign:
        return []
    engine = scan.session.engine
    guests = engine.inspect_foreign() if isinstance(engine, ForeignInspector) else []
    scan.trees.clear()
    known = {fs.device: fs for fs in engine.storage().filesystems}
    found = [_inspection(guest, known, applications=applications) for guest in guests]
    seen = {guest.root for guest in found}
    for device, kind in scan.foreign:
        if device not in seen:
            message = f"{device}: looks like {kind}, but nothing more could be found out"
            notice = Notice(code="inspect.foreign", message=message)
            found.append(Inspection(root=device, type=kind, warnings=(notice,)))
    return found


def _inspection(
    guest: ForeignGuest, known: dict[str, Filesystem], *, applications: bool
) -> Inspection:
    windows = None
    if guest.type == "windows":
        windows = WindowsDetails(
            systemroot=guest.windows_systemroot,
            current_control_set=guest.windows_current_control_set,
            drive_mappings=tuple(sorted(guest.drive_mappings, key=lambda pair: pair[0].lower())),
        )
    return Inspection(
        root=guest.root,
        type=guest.type,
        distro=guest.distro,
        product_name=guest.product_name,
        pretty_name=guest.product_name,
        product_variant=guest.product_variant,
        major_version=guest.major,
        minor_version=guest.minor,
        arch=guest.arch,
        hostname=guest.hostname,
        package_format=guest.package_format,
        package_management=guest.package_management,
        osinfo=guest.osinfo,
        mountpoints=tuple(Mountpoint(path=p, device=d) for p, d in guest.mountpoints),
        filesystems=tuple(_filesystem(device, known) for device in sorted(guest.filesystems)),
        windows=windows,
        applications=_applications(guest) if applications else (),
    )


def _filesystem(device: str, known: dict[str, Filesystem]) -> GuestFilesystem:
    fs = known.get(device)
    if fs is None:
        return GuestFilesystem(device=device)
    kind = "" if fs.type == "unknown" else fs.type
    return GuestFilesystem(device=device, type=kind, label=fs.label, uuid=fs.uuid, size=fs.size)


def _applications(guest: ForeignGuest) -> tuple[Application, ...]:
    found = Collection()
    for one in guest.applications:
        texts = {name: getattr(one, name) for name in _APPLICATION_TEXTS}
        found.add(Application(epoch=one.epoch, **texts))
    return tuple(found.sorted())
