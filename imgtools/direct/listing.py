"""`model.Storage` from what a scan found, in libguestfs's order (daemon/listfs.ml)."""

from __future__ import annotations

import re
from dataclasses import replace

from imgtools.direct.partitions import TableEntry
from imgtools.direct.scan import Node, Scan
from imgtools.errors import DirectUnsupportedError
from imgtools.model.storage import (
    BlockDevice,
    Filesystem,
    LogicalVolume,
    Partition,
    PhysicalVolume,
    Storage,
    VolumeGroup,
)

NOT_LISTED = ("crypto_LUKS", "BitLocker")
# Windows LDM metadata and data, Microsoft reserved, Windows snapshot.
NO_FILESYSTEM = (
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",
    "AF9B60A0-1431-4F62-BC68-3311714A69AD",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "CADDEBF1-4400-4DE8-B103-12117DCF3CCF",
)
LDM_TYPES = NO_FILESYSTEM[:2]


def list_storage(scan: Scan) -> Storage:
    """Return everything the scan found, sorted as libguestfs lists it."""
    partitions = _partitions(scan)
    if any(partition.gpt_type in LDM_TYPES for partition in partitions):
        raise DirectUnsupportedError("Windows dynamic disks (LDM)")
    return Storage(
        devices=tuple(
            BlockDevice(name=node.name, size=node.stream.size, disk=index)
            for index, node in enumerate(scan.of_kind("disk"))
        ),
        partitions=tuple(partitions),
        mds=tuple(sorted(scan.mds, key=lambda md: _numeric(md.name))),
        pvs=tuple(sorted(_pvs(scan), key=lambda pv: pv.name)),
        vgs=tuple(sorted(_vgs(scan), key=lambda vg: vg.name)),
        lvs=tuple(sorted(_lvs(scan), key=lambda lv: lv.name)),
        luks=tuple(scan.luks),
        filesystems=tuple(_filesystems(scan, partitions)),
        warnings=tuple(scan.warnings),
    )


def _numeric(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    assert match is not None
    return match.group(1), int(match.group(2) or 0)


def _partitions(scan: Scan) -> list[Partition]:
    found: list[Partition] = []
    for disk in scan.of_kind("disk"):
        if disk.table is not None:
            entries = sorted(disk.table.entries, key=lambda entry: entry.number)
            found += [_partition(disk, disk.table.kind, entry) for entry in entries]
    return found


def _partition(disk: Node, kind: str, entry: TableEntry) -> Partition:
    # mkfs.fat writes a table whose entry is the whole disk: a partition to the kernel, no table to
    # parted, whose word libguestfs takes for everything but the name and the size.
    bogus = kind == "msdos" and entry.start == 0
    return Partition(
        name=f"{disk.name}{entry.number}",
        size=entry.size,
        parent=disk.name,
        number=entry.number,
        table="" if bogus else kind,
        start=entry.start,
        mbr_id=0 if bogus else entry.mbr_id,
        gpt_type=entry.gpt_type,
        gpt_guid=entry.gpt_guid,
        label=entry.label,
        bootable=entry.bootable and not bogus,
        extended=entry.extended,
    )


def _pvs(scan: Scan) -> list[PhysicalVolume]:
    found = []
    grouped = {
        pv.device: (named.name, size)
        for named in scan.vgs
        for pv, size in zip(named.vg.pvs, named.vg.pv_sizes, strict=True)
    }
    for pv in scan.pvs:
        vg, size = grouped.get(pv.device, ("", pv.header.device_size))
        found.append(PhysicalVolume(name=pv.device, size=size, uuid=pv.header.uuid, vg=vg))
    return found


def _vgs(scan: Scan) -> list[VolumeGroup]:
    return [
        VolumeGroup(
            name=named.name,
            size=named.vg.size,
            uuid=named.vg.uuid,
            parents=tuple(sorted(pv.device for pv in named.vg.pvs)),
            own_name=named.vg.name,
        )
        for named in scan.vgs
    ]


def _lvs(scan: Scan) -> list[LogicalVolume]:
    return [
        LogicalVolume(
            name=f"/dev/{named.name}/{lv.name}", size=lv.stream.size, uuid=lv.uuid, vg=named.name
        )
        for named in scan.vgs
        for lv in named.vg.lvs
    ]


def _filesystems(scan: Scan, partitions: list[Partition]) -> list[Filesystem]:
    by_name = {partition.name: partition for partition in partitions}
    order = [node for node in scan.of_kind("disk") if not node.partitioned]
    order += sorted(scan.of_kind("dm"), key=lambda node: node.name)
    order += [node for node in scan.of_kind("partition") if _can_hold(by_name[node.name])]
    order += sorted(scan.of_kind("md"), key=lambda node: _numeric(node.name))
    order += sorted(scan.of_kind("lv"), key=lambda node: node.name)
    return [filesystem for node in order for filesystem in _on(scan, node)]


def _can_hold(partition: Partition) -> bool:
    return not partition.extended and partition.gpt_type not in NO_FILESYSTEM


def _on(scan: Scan, node: Node) -> list[Filesystem]:
    """The filesystems on one device: none, one, or a btrfs with its subvolumes."""
    found = node.found
    assert found is not None
    if found.foreign:
        raise DirectUnsupportedError(f"{node.name}: the direct engine cannot read {found.type}")
    if found.type.endswith("_member") or found.type in NOT_LISTED:
        return []
    whole = _filesystem(node, found.type or "unknown")
    if found.type != "btrfs":
        return [whole]
    return [whole, *_subvolumes(scan, node, whole)]


def _filesystem(node: Node, kind: str) -> Filesystem:
    assert node.found is not None
    return Filesystem(
        device=node.name,
        type=kind,
        label=node.found.label,
        uuid=node.found.uuid,
        size=node.stream.size,
        parents=tuple(sorted(node.parents)),
        disks=tuple(sorted(node.disks)),
    )


def _subvolumes(scan: Scan, node: Node, whole: Filesystem) -> list[Filesystem]:
    from imgtools.direct.filesystems import btrfs_subvolumes

    volumes = btrfs_subvolumes([node.stream, *scan.siblings(node)])
    paths = [path for number, path in volumes.subvolumes if number != volumes.default_id]
    return [
        replace(
            whole,
            device=f"btrfsvol:{node.name}/{path.decode('utf-8', 'surrogateescape')}",
            parents=(node.name,),
        )
        for path in paths
    ]
