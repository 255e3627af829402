"""Mount what the user names (``-m DEVICE[:MOUNTPOINT[:OPTIONS[:FSTYPE]]]``) instead of inspecting.

The syntax is guestfish's (fish/guestfish.pod).  We read only and detect the type ourselves, so
of the options only those are taken that say so or that choose a btrfs subvolume.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree, Mount, show
from imgtools.model.storage import Filesystem

_HARMLESS = ("", "ro", "defaults", "noatime", "relatime", "nodev", "nosuid", "noexec")
_SUBVOLUME = "btrfsvol:"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRequest:
    """A mountable as the user named it, and where it goes in the guest's tree."""

    device: str
    mountpoint: bytes = b"/"
    fstype: str = ""


def parse_mounts(texts: Sequence[str]) -> list[MountRequest]:
    """Parse the arguments of all ``-m``.

    Raises UsageError, also when none goes on ``/`` or two go to one place.
    """
    requests = [parse_mount(text) for text in texts]
    points = [request.mountpoint for request in requests]
    if requests and b"/" not in points:
        raise UsageError("-m: nothing is mounted on /", hint="add -m DEVICE")
    if len(set(points)) < len(points):
        raise UsageError("-m: two filesystems for one mountpoint")
    return requests


def parse_mount(text: str) -> MountRequest:
    """Parse the argument of one ``-m``.  Raises UsageError."""
    prefix = _SUBVOLUME if text.startswith(_SUBVOLUME) else ""
    device, *rest = text.removeprefix(prefix).split(":", 3)
    mountpoint, options, fstype = [*rest, "", "", ""][:3]
    mountpoint = mountpoint or "/"
    if not device:
        raise UsageError(f"-m {text}: names no device", hint="-m DEVICE[:MOUNTPOINT]")
    if not mountpoint.startswith("/"):
        raise UsageError(f"-m {text}: the mountpoint does not start with /")
    device = prefix + device
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "subvol" and value and not prefix:
            device = f"{_SUBVOLUME}{device}/{value.strip('/')}"
        elif option not in _HARMLESS:
            raise UsageError(
                f"-m {text}: mount option {option} is not supported",
                hint="filesystems are read only; ro and subvol=NAME are known",
            )
    parts = [part for part in mountpoint.encode(errors="surrogateescape").split(b"/") if part]
    return MountRequest(device=device, mountpoint=b"/" + b"/".join(parts), fstype=fstype)


def parse_mount_options(text: str) -> dict[bytes, str]:
    """Parse virt-sysprep's ``--mount-options MOUNTPOINT:OPTIONS[;…]``: options by mountpoint.

    Raises UsageError, also for two options of one mountpoint.
    """
    found: dict[bytes, str] = {}
    for part in (one for one in text.split(";") if one):
        mountpoint, colon, options = part.partition(":")
        if not colon or not mountpoint.startswith("/") or not options:
            raise UsageError(
                f"--mount-options {part}: is not MOUNTPOINT:OPTIONS",
                hint="--mount-options '/:noatime;/boot:sync'",
            )
        point = b"/" + mountpoint.encode(errors="surrogateescape").strip(b"/")
        if point in found:
            raise UsageError(f"--mount-options: {mountpoint} comes twice")
        found[point] = options
    return found


def refuse_unmounted(options: Mapping[bytes, str], mountpoints: Iterable[bytes]) -> None:
    """Raises GuestOperationError if options are for what the guest has no filesystem on."""
    known = sorted(mountpoints)
    for point in options:
        if point not in known:
            raise GuestOperationError(
                f"--mount-options: nothing of the guest is mounted on {show(point)}",
                hint=f"there are: {', '.join(show(one) for one in known)}",
            )


def mount_requested(session: Session, requests: Sequence[MountRequest]) -> GuestTree:
    """The tree of the filesystems the user named.

    Raises GuestOperationError for a device that the disks do not have or that holds another
    type.
    """
    return GuestTree([_mount(session, request) for request in requests])


def _mount(session: Session, request: MountRequest) -> Mount:
    filesystem = _find(session, request)
    if request.fstype and request.fstype != filesystem.type:
        raise GuestOperationError(
            f"{request.device}: holds {filesystem.type}, not {request.fstype}"
        )
    tree = session.engine.mount(filesystem.device)
    return Mount(request.mountpoint, filesystem.device, tree, filesystem.type)


def _find(session: Session, request: MountRequest) -> Filesystem:
    filesystems = session.engine.storage().filesystems
    wanted = {request.device, _canonical(request.device)}
    for filesystem in filesystems:
        names = {filesystem.device, f"UUID={filesystem.uuid}", f"LABEL={filesystem.label}"}
        if filesystem.mountable and names & wanted:
            return filesystem
    known = ", ".join(f"{one.device} ({one.type})" for one in filesystems if one.mountable)
    raise GuestOperationError(
        f"{request.device}: no such filesystem on the disks",
        hint=f"there are: {known}" if known else "there is none that can be mounted",
    )


def _canonical(device: str) -> str:
    """libguestfs's name of a device: ``/dev/vda1`` and ``/dev/hda1`` are ``/dev/sda1``."""
    return re.sub(r"^(btrfsvol:)?/dev/(?:[hv]|xv)d([a-z]+[0-9]*)(?=/|$)", r"\1/dev/sd\2", device)
