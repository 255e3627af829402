"""The UUIDs of filesystems, swap spaces and LUKS headers."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, set_uuid
from imgtools_ops._ids import Ids
from imgtools_ops._references import references

KINDS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "swap", "vfat")
_CANNOT = ("", "unknown", "swsuspend", "squashfs", "erofs", "iso9660", "udf", "cramfs", "romfs")


def plan(guest: Guest, options: Mapping[str, Any]) -> Iterator[Action]:
    """One new UUID for each old one: a snapshot keeps the UUID of its origin."""
    del options
    new: dict[str, str] = {}
    for device, kind, old in _things(guest):
        new.setdefault(old, _random(kind))
        yield from set_uuid(device, kind, old, new[old])
    ids = Ids()
    ids.update({old.lower(): fresh.lower() for old, fresh in new.items()})
    yield from references(guest, ids)


def _things(guest: Guest) -> Iterator[tuple[str, str, str]]:
    """Device, kind and UUID of everything that has one that can be changed."""
    for luks in guest.storage.luks:
        if luks.uuid:
            yield luks.device, "crypto_LUKS", luks.uuid
    mounted = {one.uuid for one in guest.storage.filesystems if guest.is_mounted(one.device)}
    parts: set[str] = set()
    for one in guest.storage.filesystems:
        if not one.uuid or one.device.startswith("btrfsvol:") or one.uuid in parts:
            continue
        if one.type == "btrfs":
            parts.add(one.uuid)  # one of its devices stands for all
        if one.type not in KINDS:
            if one.type not in _CANNOT:
                guest.warn(f"{one.device}: {one.type} keeps its UUID {one.uuid}")
            continue
        if one.type not in ("swap", "vfat") and one.uuid not in mounted:
            guest.warn(
                f"{one.device}: gets a new UUID, and the guest does not mount it: if it has "
                "another system, that may not boot any more"
            )
        yield one.device, one.type, one.uuid


def _random(kind: str) -> str:
    if kind == "vfat":
        number = f"{secrets.randbits(32):08X}"
        return f"{number[:4]}-{number[4:]}"
    return str(uuid.uuid4())


operation = Operation(
    name="fs-uuids",
    heading="Give filesystems new UUIDs",
    description="Random UUIDs for ext2, ext3, ext4, XFS, btrfs, swap and LUKS, a random serial for "
    "FAT, and whatever names the old ones names the new: fstab, crypttab, GRUB, boot loader "
    "entries, kernel command lines, units, initramfs.  The guest still boots, and two clones can "
    "be attached to one machine.  Everything is checked and written anew that a filesystem's "
    "checksums cover, which takes time on a large one.",
    plan=plan,
    order=99,
    default=False,
)
