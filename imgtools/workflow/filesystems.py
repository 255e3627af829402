"""What lies on the disks of a guest, as virt-filesystems lists it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from imgtools.errors import DirectError, GuestOperationError, ImageError
from imgtools.guest.opening import Outcome, Session
from imgtools.model.storage import Filesystem, Storage
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

RowType = Literal["filesystem", "lv", "vg", "pv", "partition", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which kinds of rows to list; ``extra`` adds swap and unrecognised volumes.

    ``sizes`` is set when sizes of filesystems are wanted: each must be mounted to tell its own.
    """

    filesystems: bool = False
    extra: bool = False
    lvs: bool = False
    vgs: bool = False
    pvs: bool = False
    partitions: bool = False
    devices: bool = False
    sizes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing on the disks.  None means that the column makes no sense for its type.

    ``size`` in bytes: of a filesystem, what it says itself (its device's when it cannot be
    mounted; None for a btrfs subvolume); ``mbr_id`` is the partition type's byte on MBR;
    ``uuid`` is written as the tools of its layer do (LVM: with dashes for an lv only).
    """

    name: str
    type: RowType
    vfs_type: str | None = None
    label: str | None = None
    mbr_id: int | None = None
    size: int | None = None
    parents: tuple[str, ...] = ()
    uuid: str | None = None


def filesystems(arguments: DiskArguments, wanted: Wanted) -> Outcome[list[Row]]:
    """List what ``wanted`` asks for, most specific first, each kind in libguestfs's order."""
    selection = select_one(arguments)
    return run_selected(lambda session: list_rows(session, wanted), selection, arguments)


def list_rows(session: Session, wanted: Wanted) -> list[Row]:
    """The rows of an open guest."""
    storage = session.engine.storage()
    rows: list[Row] = []
    if wanted.filesystems:
        rows += _filesystem_rows(session, storage, wanted)
    if wanted.lvs:
        rows += _lv_rows(storage)
    if wanted.vgs:
        rows += _vg_rows(storage)
    if wanted.pvs:
        rows += _pv_rows(storage)
    if wanted.partitions:
        rows += _partition_rows(storage)
    if wanted.devices:
        rows += [Row(name=one.name, type="device", size=one.size) for one in storage.devices]
    return rows


def _filesystem_rows(session: Session, storage: Storage, wanted: Wanted) -> Iterator[Row]:
    arrays = {md.name: md.parents for md in storage.mds}
    for filesystem in storage.filesystems:
        if not wanted.extra and filesystem.type in ("swap", "unknown"):
            continue
        yield Row(
            name=filesystem.device,
            type="filesystem",
            vfs_type=filesystem.type,
            label=filesystem.label,
            size=_size(session, filesystem) if wanted.sizes else None,
            parents=arrays.get(filesystem.device, ()),
            uuid=filesystem.uuid,
        )


def _size(session: Session, filesystem: Filesystem) -> int | None:
    if filesystem.device.startswith("btrfsvol:"):
        return None
    if not filesystem.mountable:
        return filesystem.size
    try:
        space = session.engine.mount(filesystem.device).statvfs()
    except DirectError:
        raise
    except (GuestOperationError, ImageError):
        return filesystem.size
    return space.blocks * space.bsize


def _lv_rows(storage: Storage) -> Iterator[Row]:
    for lv in storage.lvs:
        parent = lv.name.rpartition("/")[0]
        yield Row(name=lv.name, type="lv", size=lv.size, parents=(parent,), uuid=_dashed(lv.uuid))


def _vg_rows(storage: Storage) -> Iterator[Row]:
    for vg in storage.vgs:
        yield Row(
            name=f"/dev/{vg.name}",
            type="vg",
            size=vg.size,
            parents=vg.parents,
            uuid=vg.uuid.replace("-", ""),
        )


def _pv_rows(storage: Storage) -> Iterator[Row]:
    for pv in storage.pvs:
        yield Row(name=pv.name, type="pv", size=pv.size, uuid=pv.uuid.replace("-", ""))


def _partition_rows(storage: Storage) -> Iterator[Row]:
    for one in storage.partitions:
        yield Row(
            name=one.name,
            type="partition",
            mbr_id=one.mbr_id,
            size=one.size,
            parents=(one.parent,),
        )


def _dashed(uuid: str) -> str:
    """An LVM UUID in the 6-4-4-4-4-4-6 form that lvm(8) prints."""
    plain = uuid.replace("-", "")
    return re.sub(r"^(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})$", r"\1-\2-\3-\4-\5-\6-\7", plain)
