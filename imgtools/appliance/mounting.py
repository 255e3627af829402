"""Mount one filesystem of the storage in the appliance, where the kernel needs help to do so."""

from __future__ import annotations

import os
import shlex
from functools import partial

from imgtools.appliance.launch import Appliance
from imgtools.appliance.library import CallError, Library
from imgtools.appliance.survey import Survey, kernel_path
from imgtools.appliance.translate import mount_reason
from imgtools.errors import GuestOperationError
from imgtools.model.storage import Filesystem, Storage

# Kinds of UFS that the kernel cannot tell apart by itself (Documentation/admin-guide/ufs.rst).
_UFS_TYPES = ("ufs2", "44bsd", "old", "sun", "sunx86")

# Filesystems that the appliance's kernel reads but does not write (UFS: without a special build).
READ_ONLY = ("squashfs", "iso9660", "udf", "ufs", "cramfs", "romfs", "erofs")

# Two clones in one appliance carry one btrfs UUID: the kernel keeps one device for each UUID and
# refuses the second while the first is mounted.  Before any of them is mounted, all but the first
# get a UUID of their own, in our overlay.  The parts of one filesystem are left alone.
_BTRFS_CLONES = """
[ -e {done} ] && exit 0
: > {done}
set -- {devices}
devices=$(btrfs inspect-internal dump-super "$1" | grep ^num_devices)
case $devices in *[!0-9]1) ;; *) btrfs device scan >/dev/null 2>&1; exit 0;; esac
btrfs device scan --forget >/dev/null 2>&1
shift
for device; do btrfstune -f -m "$device" >/dev/null 2>&1; done
btrfs device scan >/dev/null 2>&1
exit 0
"""


def mount(
    appliance: Appliance,
    storage: Storage,
    survey: Survey,
    device: str,
    mountpoint: bytes,
    *,
    writable: bool = False,
    within: bool = False,
    more: str = "",
) -> None:
    """Mount ``device`` on a new ``mountpoint``, read-only unless ``writable``.

    With ``within`` it is ``/``, or a folder of a filesystem that is mounted already; ``more`` are
    options besides our own.

    The block device below is our overlay and writable, so a journal is replayed, there and
    nowhere else.  Raises GuestOperationError with the kernel's reason.
    """
    found = next((one for one in storage.filesystems if one.device == device), None)
    mountable = device.encode("utf-8", errors="surrogateescape")
    if not within:
        appliance.call(lambda lib: lib.status("mkmountpoint", mountpoint))
    kind = found.type if found else ""
    if found is not None and kind == "btrfs" and not writable:
        _prepare_btrfs(appliance, storage, survey, found)  # which changes UUIDs of clones
    reasons = []
    for options in _writing_options(device, kind) if writable else _options(kind):
        try:
            words = b",".join(one for one in (os.fsencode(more), options) if one)
            call = partial(_mount_options, options=words, at=(mountable, mountpoint))
            appliance.call(call, what=f"mounting {device}")
        except CallError as error:
            reasons.append(error.message)
        else:
            return
    if not within:
        appliance.call(lambda lib: lib.status("rmmountpoint", mountpoint))
    raise GuestOperationError(f"{device}: cannot be mounted: {mount_reason(reasons[0])}")


def separate_clones(appliance: Appliance, storage: Storage, survey: Survey) -> None:
    """Give clones of one btrfs UUIDs of their own, so that each can be mounted."""
    for one in storage.filesystems:
        if one.type == "btrfs" and not _is_subvolume(one):
            _prepare_btrfs(appliance, storage, survey, one)


def _mount_options(lib: Library, options: bytes, at: tuple[bytes, bytes]) -> int:
    return lib.status("mount_options", options, *at)


def _options(kind: str) -> list[bytes]:
    """Mount options to try in turn."""
    if kind == "ufs":
        return [b"ro,ufstype=" + name.encode() for name in _UFS_TYPES]
    if kind == "xfs":
        # Of two clones with one UUID the kernel mounts only the first without nouuid.
        return [b"ro", b"ro,nouuid"]
    return [b"ro"]


def _writing_options(device: str, kind: str) -> list[bytes]:
    """Mount options to try in turn, for writing."""
    if kind in READ_ONLY:
        raise GuestOperationError(f"{device}: a filesystem of the type {kind} cannot be written")
    return [b"", b"nouuid"] if kind == "xfs" else [b""]


def _prepare_btrfs(
    appliance: Appliance, storage: Storage, survey: Survey, wanted: Filesystem
) -> None:
    whole = [
        one.device
        for one in storage.filesystems
        if one.type == "btrfs" and one.uuid == wanted.uuid and not _is_subvolume(one)
    ]
    if len(whole) < 2:
        return
    marker = "/tmp/imgtools.btrfs." + "".join(c for c in wanted.uuid if c.isalnum())  # noqa: S108
    devices = " ".join(shlex.quote(kernel_path(survey, device)) for device in whole)
    script = _BTRFS_CLONES.replace("{done}", marker).replace("{devices}", devices)
    appliance.shell(script, what=f"mounting {wanted.device}")


def _is_subvolume(filesystem: Filesystem) -> bool:
    return filesystem.device.startswith("btrfsvol:")
