"""What lies on the disks: partitions, volumes and filesystems."""

from __future__ import annotations

from dataclasses import dataclass

from imgtools.model.notices import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A whole disk as the guest sees it.  ``disk`` is its 0-based index among the disks."""

    name: str
    size: int
    disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition.

    ``number`` is the kernel's (logical MBR partitions start at 5); ``mbr_id`` is the MBR type
    byte, None on GPT; ``gpt_type`` and ``gpt_guid`` are upper-case GUIDs, None on MBR;
    ``table`` is the partition table's type as libguestfs names it: ``gpt`` or ``msdos``.
    """

    name: str
    size: int
    parent: str
    number: int
    table: str
    start: int = 0
    mbr_id: int | None = None
    gpt_type: str | None = None
    gpt_guid: str | None = None
    label: str = ""
    bootable: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MdDevice:
    """An MD RAID array: ``level`` as mdadm prints it (``raid1``, ``linear`` …)."""

    name: str
    size: int
    level: str
    uuid: str
    parents: tuple[str, ...]
    degraded: bool = False
    set_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalVolume:
    """An LVM physical volume; ``uuid`` is LVM's id without dashes (as libguestfs lists it)."""

    name: str
    size: int
    uuid: str
    vg: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """An LVM volume group; ``parents`` are its PVs' device names.

    ``name`` is unique among the disks opened together; when two volume groups carry the same
    name, see `unique_vg_names`.  ``own_name`` is the name in LVM's metadata.
    """

    name: str
    size: int
    uuid: str
    parents: tuple[str, ...]
    own_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """An LVM logical volume that can hold data; ``name`` is ``/dev/VG/LV``."""

    name: str
    size: int
    uuid: str
    vg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LuksVolume:
    """An encrypted volume: ``device`` holds it, ``mapped`` is its opened name or None."""

    device: str
    uuid: str
    version: int
    mapped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """Something mountable, or swap, or a volume whose content nobody recognises.

    ``device`` is the mountable; ``type`` is libblkid's name (``ext4``, ``vfat``, ``swap`` …) or
    ``unknown``; ``size`` is the device's, in bytes; ``parents`` are the devices it rests on
    directly; ``disks`` are the indexes of all disks it lies on, sorted.
    """

    device: str
    type: str
    label: str = ""
    uuid: str = ""
    size: int = 0
    parents: tuple[str, ...] = ()
    disks: tuple[int, ...] = ()

    @property
    def mountable(self) -> bool:
        """True when it can be expected to mount (not swap, not unknown)."""
        return self.type not in ("", "swap", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Everything found on a set of disks, each kind in libguestfs's listing order."""

    devices: tuple[BlockDevice, ...] = ()
    partitions: tuple[Partition, ...] = ()
    mds: tuple[MdDevice, ...] = ()
    pvs: tuple[PhysicalVolume, ...] = ()
    vgs: tuple[VolumeGroup, ...] = ()
    lvs: tuple[LogicalVolume, ...] = ()
    luks: tuple[LuksVolume, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()
    warnings: tuple[Notice, ...] = ()


def unique_vg_names(groups: list[tuple[str, str]]) -> list[str]:
    """Names for volume groups given as (own name, uuid), in disk order, made unique.

    LVM refuses two groups of one name, and auditors do add two clones at once.  The first one
    keeps its name; a later namesake gets ``-`` and the first six characters of its uuid
    (dashes dropped), which both engines use, so that a device name means the same in both.
    """
    seen: set[str] = set()
    names = []
    for own, uuid in groups:
        name = own if own not in seen else f"{own}-{uuid.replace('-', '')[:6]}"
        seen.add(name)
        names.append(name)
    return names
