"""Guests that are not Linux, as libguestfs's own inspection sees them.

Our inspection reads Linux guests on either engine; Windows, the BSDs, Hurd, Minix and DOS are left
to libguestfs for now, whose answers are copied here as plain text.  Each fact may fail by itself.
"""

from __future__ import annotations

from typing import Any

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import (
    Application2List,
    CallError,
    Library,
    decode,
)
from imgtools.appliance.translate import first_line
from imgtools.model.foreign import ForeignApplication, ForeignGuest
from imgtools.model.notices import Notice

_TEXTS = {
    "type": "type",
    "distro": "distro",
    "product_name": "product_name",
    "product_variant": "product_variant",
    "arch": "arch",
    "hostname": "hostname",
    "windows_systemroot": "windows_systemroot",
    "windows_current_control_set": "windows_current_control_set",
    "osinfo": "osinfo",
    "package_format": "package_format",
    "package_management": "package_management",
}
_APPLICATION = (
    *("name", "display_name", "version", "release", "arch", "install_path", "publisher", "url"),
    *("source_package", "summary", "description"),
)


def inspect_foreign(appliance: Appliance, notices: list[Notice]) -> list[ForeignGuest]:
    """Inspect with libguestfs and return the guests that are not Linux.

    Takes tens of seconds without KVM.  A fact that libguestfs cannot tell is empty; a list of
    applications that it cannot read is empty, with a notice.
    """
    try:
        roots = appliance.call(lambda lib: lib.texts("inspect_os"), what="inspection")
    except CallError as error:
        notices.append(Notice(code="inspect.foreign", message=first_line(error.message)))
        return []
    guests = []
    for root in roots:
        kind = _text(appliance, "type", root)
        if kind not in ("", "unknown", "linux"):
            guests.append(_guest(appliance, root, notices))
    return guests


def _guest(appliance: Appliance, root: bytes, notices: list[Notice]) -> ForeignGuest:
    texts = {name: _text(appliance, call, root) for name, call in _TEXTS.items()}
    texts = {name: "" if value == "unknown" else value for name, value in texts.items()}
    mountpoints = _table(appliance, "mountpoints", root)
    return ForeignGuest(
        root=decode(root),
        major=_number(appliance, "major_version", root),
        minor=_number(appliance, "minor_version", root),
        mountpoints=tuple(sorted(mountpoints, key=lambda pair: (len(pair[0]), pair[0]))),
        filesystems=tuple(_list(appliance, "filesystems", root)),
        drive_mappings=tuple(_table(appliance, "drive_mappings", root)),
        applications=_applications(appliance, root, mountpoints, notices),
        **texts,
    )


def _text(appliance: Appliance, name: str, root: bytes) -> str:
    try:
        return decode(appliance.call(lambda lib: lib.text(f"inspect_get_{name}", root)))
    except CallError:
        return ""


def _number(appliance: Appliance, name: str, root: bytes) -> int:
    try:
        return appliance.call(lambda lib: lib.status(f"inspect_get_{name}", root))
    except CallError:
        return 0


def _list(appliance: Appliance, name: str, root: bytes) -> list[str]:
    try:
        found = appliance.call(lambda lib: lib.texts(f"inspect_get_{name}", root))
    except CallError:
        return []
    return [decode(item) for item in found]


def _table(appliance: Appliance, name: str, root: bytes) -> list[tuple[str, str]]:
    flat = _list(appliance, name, root)
    return list(zip(flat[::2], flat[1::2], strict=False))


def _applications(
    appliance: Appliance, root: bytes, mountpoints: list[tuple[str, str]], notices: list[Notice]
) -> tuple[ForeignApplication, ...]:
    """libguestfs reads them from the mounted guest; every mount is undone afterwards."""
    try:
        appliance.call(lambda lib: lib.status("umount_all"))
        for mountpoint, device in sorted(mountpoints, key=lambda pair: len(pair[0])):
            _mount(appliance, device, mountpoint)
        found: tuple[ForeignApplication, ...] = appliance.call(
            lambda lib: _list_applications(lib, root), what="listing applications"
        )
    except CallError as error:
        message = f"{decode(root)}: no list of applications: {first_line(error.message)}"
        notices.append(Notice(code="inspect.applications", message=message))
        return ()
    finally:
        appliance.call(lambda lib: lib.status("umount_all"))
    return found


def _mount(appliance: Appliance, device: str, mountpoint: str) -> None:
    arguments = device.encode(errors="surrogateescape"), mountpoint.encode(errors="surrogateescape")
    try:
        appliance.call(lambda lib: lib.status("mount_ro", *arguments), what=f"mounting {device}")
    except CallError:
        if mountpoint == "/":
            raise


def _list_applications(lib: Library, root: bytes) -> tuple[ForeignApplication, ...]:
    found: tuple[ForeignApplication, ...] = lib.record(
        "inspect_list_applications2", Application2List, _applications_of, root
    )
    return found


def _applications_of(found: Any) -> tuple[ForeignApplication, ...]:
    items = [found.val[index] for index in range(found.len)]
    return tuple(
        ForeignApplication(
            epoch=item.epoch,
            **{name: decode(getattr(item, name) or b"") for name in _APPLICATION},
        )
        for item in items
    )
