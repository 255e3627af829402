"""From a survey of the appliance to `model.Storage`, in libguestfs's listing order.

Which devices can hold a filesystem follows daemon/listfs.ml of libguestfs: whole devices without
partitions, device-mapper devices that are not LVM's, partitions but for extended ones and Windows'
reserved and LDM ones, MD arrays, logical volumes, LDM volumes; members of anything are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from imgtools.appliance.survey import Device, Survey, disk_index, disks_below, unescape
from imgtools.model.notices import Notice
from imgtools.model.storage import (
    BlockDevice,
    Filesystem,
    LogicalVolume,
    LuksVolume,
    MdDevice,
    Partition,
    PhysicalVolume,
    Storage,
    VolumeGroup,
)

EXTENDED = (0x05, 0x0F, 0x85)
LDM_MBR = 0x42
_NO_FILESYSTEM = (
    "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",  # LDM metadata
    "AF9B60A0-1431-4F62-BC68-3311714A69AD",  # LDM data
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",  # Microsoft reserved
    "CADDEBF1-4400-4DE8-B103-12117DCF3CCF",  # Windows snapshot
)
_GPT_LEGACY_BOOT = 1 << 2


class Builder:
    """Builds the storage record from one survey.

    ``own_names`` are the volume groups that were renamed: unique name to the name on disk.
    ``mapped`` are the LUKS volumes that we opened: device to mapped name.
    """

    def __init__(
        self, survey: Survey, own_names: dict[str, str], mapped: dict[str, str], keyed: bool
    ) -> None:
        self.survey = survey
        self.own_names = own_names
        self.mapped = mapped
        self.keyed = keyed
        self.warnings: list[Notice] = []
        self.devices = list(survey.devices.values())
        # As lvm's own commands sort, which libguestfs lists by.
        self.lvs_rows = sorted(survey.lvm("lv"), key=_lv_path)
        self.pvs_rows = sorted(survey.lvm("pv"), key=lambda row: row["pv_name"])
        groups = sorted(survey.lvm("vg"), key=lambda row: row["vg_name"])
        self._members = {row["vg_uuid"]: row for row in groups}

    def build(self) -> Storage:
        """Everything, with a warning for each device that could not be read."""
        luks = tuple(self._luks())
        storage = Storage(
            devices=tuple(self._block_devices()),
            partitions=tuple(self._partitions()),
            mds=tuple(self._mds()),
            pvs=tuple(self._pvs()),
            vgs=tuple(self._vgs()),
            lvs=tuple(self._lvs()),
            luks=luks,
            filesystems=tuple(self._filesystems()),
        )
        return _with_warnings(storage, self.warnings)

    # -- devices ------------------------------------------------------------------------------

    def _block_devices(self) -> Iterator[BlockDevice]:
        for device in self.devices:
            disk = disk_index(device.path)
            if device.type == "disk" and disk is not None:
                yield BlockDevice(name=device.path, size=device.size, disk=disk)

    def _partitions(self) -> Iterator[Partition]:
        for device in self.devices:
            if device.number:
                yield self._partition(device)

    def _partition(self, device: Device) -> Partition:
        row = device.row
        flags = _hex(row.get("partflags"))
        gpt = device.table == "gpt"
        mbr_id = None if gpt else _hex(row.get("parttype"))
        return Partition(
            name=device.path,
            size=device.size,
            parent=device.parent,
            number=device.number,
            table=device.table,
            start=device.start,
            mbr_id=mbr_id,
            gpt_type=str(row.get("parttype") or "").upper() if gpt else None,
            gpt_guid=str(row.get("partuuid") or "").upper() if gpt else None,
            label=str(row.get("partlabel") or ""),
            bootable=bool(flags & _GPT_LEGACY_BOOT) if gpt else flags == 0x80,
            extended=mbr_id in EXTENDED,
        )

    def _mds(self) -> Iterator[MdDevice]:
        for device in self.devices:
            if device.number or not re.match(r"md\d+$", device.kname):
                continue
            lines = self.survey.section("md", device.kname)
            facts = dict(line.split("=", 1) for line in lines if "=" in line)
            yield MdDevice(
                name=device.path,
                size=device.size,
                level=facts.get("MD_LEVEL", ""),
                uuid=facts.get("MD_UUID", ""),
                parents=tuple(sorted(device.slaves)),
                degraded=device.degraded,
                set_name=facts.get("MD_NAME", "").rpartition(":")[2],
            )

    def _luks(self) -> Iterator[LuksVolume]:
        for device in self.devices:
            if device.facts.get("ID_FS_TYPE") != "crypto_LUKS":
                continue
            path = self.path_of(device)
            mapped = self.mapped.get(path)
            version = device.facts.get("ID_FS_VERSION", "")
            if mapped is None:
                reason = "no key given opens it" if self.keyed else "no key was given"
                self._warn("image.encrypted", f"{path}: is encrypted and {reason}")
            yield LuksVolume(
                device=path,
                uuid=device.facts.get("ID_FS_UUID", ""),
                version=int(version) if version.isdigit() else 0,
                mapped=mapped,
            )

    # -- LVM ------------------------------------------------------------------------------------

    def _pvs(self) -> Iterator[PhysicalVolume]:
        for row in self.pvs_rows:
            yield PhysicalVolume(
                name=self.survey.canonical(row["pv_name"]),
                size=int(row["pv_size"] or 0),
                uuid=row["pv_uuid"].replace("-", ""),
                vg=row["vg_name"],
            )

    def _vgs(self) -> Iterator[VolumeGroup]:
        for row in self._members.values():
            name = row["vg_name"]
            parents = [r["pv_name"] for r in self.pvs_rows if r["vg_uuid"] == row["vg_uuid"]]
            if int(row.get("vg_missing_pv_count") or 0):
                self._warn(
                    "volume.missing-pv", f"volume group {name}: a physical volume is missing"
                )
            yield VolumeGroup(
                name=name,
                size=int(row["vg_size"] or 0),
                uuid=row["vg_uuid"].replace("-", ""),
                parents=tuple(self.survey.canonical(parent) for parent in parents),
                own_name=self.own_names.get(name, name),
            )

    def _public_lvs(self) -> list[dict[str, str]]:
        """Volumes that can hold data and are meant to be active, by lvm.ml's rule."""
        return [
            row
            for row in self.lvs_rows
            if "public" in row["lv_role"].split(",") and not row.get("lv_skip_activation")
        ]

    def _lvs(self) -> Iterator[LogicalVolume]:
        for row in self._public_lvs():
            yield LogicalVolume(
                name=f"/dev/{row['vg_name']}/{row['lv_name']}",
                size=int(row["lv_size"] or 0),
                uuid=row["lv_uuid"].replace("-", ""),
                vg=row["vg_name"],
            )

    def path_of(self, device: Device) -> str:
        """The name that users know: /dev/VG/LV for a logical volume."""
        for row in self.lvs_rows:
            if device.dm_uuid.startswith("LVM-") and row.get("lv_dm_path") == device.path:
                return f"/dev/{row['vg_name']}/{row['lv_name']}"
        return device.path

    # -- filesystems ------------------------------------------------------------------------------

    def _filesystems(self) -> Iterator[Filesystem]:
        for device, path in self._candidates():
            kind = device.facts.get("ID_FS_TYPE", "") or "unknown"
            if kind.endswith("_member") or kind in ("crypto_LUKS", "BitLocker"):
                if kind == "BitLocker":
                    self._warn("image.encrypted", f"{path}: is encrypted by BitLocker")
                continue
            one = Filesystem(
                device=path,
                type=kind,
                label=self._label(device),
                uuid=device.facts.get("ID_FS_UUID", ""),
                size=device.size,
                parents=tuple(sorted(self._parents(device))),
                disks=disks_below(self.survey, device),
            )
            yield one
            if kind == "btrfs":
                yield from self._subvolumes(device, one)

    def _candidates(self) -> Iterator[tuple[Device, str]]:
        partitioned = {device.parent for device in self.devices if device.number}
        whole = [d for d in self.devices if not d.number and d.path not in partitioned]
        by_path = {device.path: device for device in whole}
        yield from ((d, d.path) for d in whole if disk_index(d.path) is not None)
        mapper = [d for d in whole if d.dm_uuid and not d.dm_uuid.startswith(("LVM-", "LDM-"))]
        yield from ((d, d.path) for d in sorted(mapper, key=lambda d: d.dm_name))
        yield from ((d, d.path) for d in self.devices if d.number and self._can_hold(d))
        yield from ((d, d.path) for d in whole if re.match(r"md\d+$", d.kname))
        for row in self._public_lvs():
            path = f"/dev/{row['vg_name']}/{row['lv_name']}"
            found = by_path.get(str(row.get("lv_dm_path")))
            if found is None:
                self._warn("volume.inactive", f"{path}: the logical volume could not be activated")
                continue
            yield found, path
        ldm = [d for d in whole if d.dm_uuid.startswith("LDM-")]
        yield from ((d, d.path) for d in sorted(ldm, key=_ldm_order))

    def _can_hold(self, device: Device) -> bool:
        kind = str(device.row.get("parttype") or "")
        if device.table == "gpt":
            return kind.upper() not in _NO_FILESYSTEM
        if device.table == "msdos":
            # The kernel makes partitions of what LDM's database says, which no table lists.
            return _hex(kind) not in (0, *EXTENDED, LDM_MBR)
        return True

    def _label(self, device: Device) -> str:
        escaped = device.facts.get("ID_FS_LABEL_ENC") or device.facts.get("ID_FS_LABEL", "")
        return device.facts.get("LABEL") or unescape(escaped)

    def _parents(self, device: Device) -> tuple[str, ...]:
        if device.number:
            return (device.parent,)
        if device.dm_uuid.startswith("CRYPT-"):
            found = [source for source, name in self.mapped.items() if name == device.path]
            return tuple(found) or device.slaves
        return device.slaves

    def _subvolumes(self, device: Device, whole: Filesystem) -> Iterator[Filesystem]:
        kernel = device.kernel_path
        default = re.match(r"ID (\d+)", "\n".join(self.survey.section("btrfs", kernel)))
        lines = self.survey.section("subvolumes", kernel)
        if default is None:
            complaint = "; ".join(self.survey.section("btrfs", kernel))[:200]
            self._warn(
                "filesystem.unreadable", f"{whole.device}: btrfs cannot be mounted ({complaint})"
            )
        for line in lines:
            found = re.match(r"ID (\d+) gen \d+ top level \d+ path (.+)$", line)
            if found is None or (default and found[1] == default[1]):
                continue
            yield Filesystem(
                device=f"btrfsvol:{whole.device}/{found[2]}",
                type="btrfs",
                label=whole.label,
                uuid=whole.uuid,
                size=whole.size,
                parents=(whole.device,),
                disks=whole.disks,
            )

    def _warn(self, code: str, message: str) -> None:
        self.warnings.append(Notice(code=code, message=message))


def _with_warnings(storage: Storage, warnings: list[Notice]) -> Storage:
    from dataclasses import replace

    return replace(storage, warnings=tuple(dict.fromkeys(warnings)))


def _hex(value: object) -> int:
    try:
        return int(str(value or "0"), 16)
    except ValueError:
        return 0


def _ldm_order(device: Device) -> tuple[bool, str]:
    """Volumes by name, then the pieces that ldmtool maps for mirrors and RAID 5."""
    return not device.dm_name.startswith("ldm_vol_"), device.dm_name


def _lv_path(row: Mapping[str, str]) -> str:
    """What libguestfs sorts logical volumes by: the whole name, so vg-x comes before vg."""
    return f"/dev/{row['vg_name']}/{row['lv_name']}"
