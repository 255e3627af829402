"""From the device names of a guest's fstab to the mountables of the opened disks.

A guest names its devices as its own kernel and udev saw them; we know them by libguestfs's names.
Where several fit (two clones of a disk added at once carry the same UUIDs and volume groups), the
one on the disks that hold the root is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from imgtools.guest.linux.fstab import CryptEntry, FstabEntry, MdEntry
from imgtools.model.storage import Filesystem, LuksVolume, MdDevice, Storage

T = TypeVar("T")

_DISK_NAME = re.compile(r"/dev/(?:h|s|v|xv)d([a-z]{1,3})(\d{0,3})\Z")
_NVME_NAME = re.compile(r"/dev/(?:nvme(\d{1,2})n1|mmcblk(\d{1,2}))(?:p(\d{1,3}))?\Z")
_MD_NAME = re.compile(r"/dev/md/?([^/]+)\Z")
_BY_ID = re.compile(r"/dev/disk/by-(?:id|path)/.*-part(\d{1,3})\Z")
_LUKS_NAME = re.compile(r"luks-([0-9a-fA-F-]{36})\Z")
_HEX_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})")
_TAGS = ("UUID", "LABEL", "PARTUUID", "PARTLABEL")


@dataclass(slots=True)
class Devices:
    """The disks as one root sees them; ``crypt`` and ``md`` are the guest's own tables."""

    storage: Storage
    root: Filesystem
    crypt: list[CryptEntry] = field(default_factory=list)
    md: list[MdEntry] = field(default_factory=list)
    _disks: dict[str, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._disks = disks_by_device(self.storage)

    def resolve(self, entry: FstabEntry) -> str | None:
        """The mountable an fstab entry means; None if it is not on these disks at all.

        A device name nobody knows comes back unchanged (but ``/dev/vda1`` as ``/dev/sda1``), as
        libguestfs has it.
        """
        if entry.spec == "/dev/root":
            device: str | None = self.root.device
        elif entry.point == "/" and self._is_root(entry.spec):
            device = self.root.device
        else:
            device = self.device_of(entry.spec)
        if device is None:
            return None
        if entry.type == "btrfs" and not device.startswith("btrfsvol:"):
            return self._subvolume(device, entry)
        return device

    def device_of(self, spec: str, depth: int = 0) -> str | None:
        """The device a spec (``UUID=…``, ``/dev/…``) means, None if it is no device of ours."""
        tag, equals, value = spec.partition("=")
        if equals and tag in _TAGS:
            return self._by_tag(tag, _unquote(value))
        if not spec.startswith("/dev/"):
            return None
        if spec.startswith("/dev/disk/by-"):
            return self._by_link(spec)
        return self._by_name(spec, depth) or canonical_name(spec)

    def known(self, device: str) -> Filesystem | None:
        """The filesystem of a mountable among these disks."""
        return next((fs for fs in self.storage.filesystems if fs.device == device), None)

    # -- by tag -----------------------------------------------------------------------------

    def _by_tag(self, tag: str, value: str) -> str | None:
        if not value:
            return None
        if tag == "UUID":
            wanted = value.lower()
            return self._nearest(fs.device for fs in self._whole() if fs.uuid.lower() == wanted)
        if tag == "LABEL":
            return self._nearest(fs.device for fs in self._whole() if fs.label == value)
        partitions = self.storage.partitions
        if tag == "PARTLABEL":
            return self._nearest(p.name for p in partitions if p.label == value)
        guid = value.upper()
        return self._nearest(p.name for p in partitions if p.gpt_guid and p.gpt_guid == guid)

    def _by_link(self, spec: str) -> str:
        kind, _, name = spec.removeprefix("/dev/disk/by-").partition("/")
        tag = {"uuid": "UUID", "label": "LABEL", "partuuid": "PARTUUID", "partlabel": "PARTLABEL"}
        if kind in tag:
            plain = _HEX_ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
            return self._by_tag(tag[kind], plain) or spec
        match = _BY_ID.match(spec)
        # What the guest's disks were called is lost; with a single disk there is no doubt.
        if match and len(self.storage.devices) == 1:
            return self._partition(0, match[1]) or spec
        return spec

    def _is_root(self, spec: str) -> bool:
        """True if ``spec`` may mean the very filesystem that holds this fstab."""
        tag, equals, value = spec.partition("=")
        value = _unquote(value)
        if equals and tag == "UUID":
            same = bool(value) and value.lower() == self.root.uuid.lower()
        elif equals and tag == "LABEL":
            same = bool(value) and value == self.root.label
        else:
            return False
        # The root on a subvolume has its device's UUID; which subvolume, the options say.
        return same and not self.root.device.startswith("btrfsvol:")

    # -- by name ----------------------------------------------------------------------------

    def _by_name(self, spec: str, depth: int) -> str | None:
        if spec.startswith("/dev/mapper/"):
            return self._mapped(spec.removeprefix("/dev/mapper/"), depth)
        if match := _DISK_NAME.match(spec):
            return self._partition(_drive_index(match[1]), match[2])
        if match := _NVME_NAME.match(spec):
            return self._partition(int(match[1] or match[2]), match[3] or "")
        if match := _MD_NAME.match(spec):
            return self._md(spec, match[1])
        vg, slash, lv = spec.removeprefix("/dev/").partition("/")
        return self._lv(vg, lv) if slash else None

    def _partition(self, index: int, number: str) -> str | None:
        devices = self.storage.devices
        if not 0 <= index < len(devices):
            return None
        name = devices[index].name + number
        known = {p.name for p in self.storage.partitions}
        return name if name in known or not number else None

    def _mapped(self, name: str, depth: int) -> str | None:
        for vg, lv in split_mapper_name(name):
            if found := self._lv(vg, lv):
                return found
        if any(luks.mapped == f"/dev/mapper/{name}" for luks in self.storage.luks):
            return f"/dev/mapper/{name}"
        return self._luks(name, depth)

    def _lv(self, vg: str, lv: str) -> str | None:
        groups = {group.name for group in self.storage.vgs if (group.own_name or group.name) == vg}
        return self._nearest(
            volume.name
            for volume in self.storage.lvs
            if volume.vg in groups and volume.name.rpartition("/")[2] == lv
        )

    def _luks(self, name: str, depth: int) -> str | None:
        """An opened LUKS volume by its name in crypttab, or by dracut's ``luks-UUID``."""
        specs = [entry.spec for entry in self.crypt if entry.name == name]
        if match := _LUKS_NAME.match(name):
            specs.append(f"UUID={match[1]}")
        for spec in specs:
            for luks in self._luks_of(spec, depth):
                if luks.mapped:
                    return luks.mapped
        return None

    def _luks_of(self, spec: str, depth: int) -> list[LuksVolume]:
        tag, _, value = spec.partition("=")
        if spec.startswith("/dev/disk/by-uuid/"):
            tag, value = "UUID", spec.removeprefix("/dev/disk/by-uuid/")
        if tag == "UUID":
            wanted = _unquote(value).lower()
            found = [luks for luks in self.storage.luks if luks.uuid.lower() == wanted]
        elif depth < 4:
            device = self.device_of(spec, depth + 1)
            found = [luks for luks in self.storage.luks if luks.device == device]
        else:
            found = []
        return sorted(found, key=lambda luks: not self._near(luks.device))

    def _md(self, spec: str, name: str) -> str | None:
        """An MD array by mdadm.conf's UUID for that name, else by the name in its superblock."""
        uuids = {
            entry.uuid
            for entry in self.md
            if entry.device == spec or _md_name(entry.device) == name
        }
        arrays = self.storage.mds
        return self._nearest([md.name for md in arrays if _hex(md.uuid) in uuids]) or self._nearest(
            md.name for md in arrays if _set_name(md) == name
        )

    # -- btrfs ------------------------------------------------------------------------------

    def _subvolume(self, device: str, entry: FstabEntry) -> str:
        path = (entry.option("subvol") or "").strip("/")
        if not path:
            return device
        name = f"btrfsvol:{device}/{path}"
        # The default subvolume is listed as the device itself and under no name.
        is_default = entry.point == "/" and self.root.device == device and not self.known(name)
        return device if is_default else name

    # -- choosing among clones ----------------------------------------------------------------

    def _whole(self) -> Iterable[Filesystem]:
        return (f for f in self.storage.filesystems if not f.device.startswith("btrfsvol:"))

    def _nearest(self, devices: Iterable[str]) -> str | None:
        candidates = list(devices)
        near = [device for device in candidates if self._near(device)]
        return next(iter(near or candidates), None)

    def _near(self, device: str) -> bool:
        return bool(self._disks.get(device, frozenset()) & frozenset(self.root.disks))


def disks_by_device(storage: Storage) -> dict[str, frozenset[int]]:
    """The disks each device lies on, by its name."""
    disks = {device.name: frozenset((device.disk,)) for device in storage.devices}
    parents: dict[str, tuple[str, ...]] = {p.name: (p.parent,) for p in storage.partitions}
    parents |= {md.name: md.parents for md in storage.mds}
    groups = {group.name: group.parents for group in storage.vgs}
    parents |= {lv.name: groups.get(lv.vg, ()) for lv in storage.lvs}
    parents |= {luks.mapped: (luks.device,) for luks in storage.luks if luks.mapped}
    for _ in range(8):  # layers only stack so high; the loop ends early when nothing is left
        missing = {name: above for name, above in parents.items() if name not in disks}
        for name, above in missing.items():
            if all(parent in disks for parent in above):
                disks[name] = frozenset().union(*(disks[parent] for parent in above))
        if not missing:
            break
    disks.update({fs.device: frozenset(fs.disks) for fs in storage.filesystems if fs.disks})
    return disks


def split_mapper_name(name: str) -> list[tuple[str, str]]:
    """(VG, LV) of a device-mapper name, where LVM doubles the hyphens of each part."""
    match = re.fullmatch(r"((?:[^-]|--)+)-((?:[^-]|--)+)", name)
    if match is None or len(name) > 512:
        return []
    return [(match[1].replace("--", "-"), match[2].replace("--", "-"))]


def canonical_name(spec: str) -> str:
    """``/dev/vda1``, ``/dev/hda1`` and ``/dev/xvda1`` as ``/dev/sda1``; others unchanged."""
    match = re.match(r"/dev/(?!m)[^/d]{1,2}d([^/]*)\Z", spec)
    return f"/dev/sd{match[1]}" if match else spec


def _drive_index(letters: str) -> int:
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _md_name(device: str) -> str:
    match = _MD_NAME.match(device)
    return match[1] if match else ""


def _set_name(md: MdDevice) -> str:
    return md.set_name.rpartition(":")[2]


def _hex(uuid: str) -> str:
    return re.sub(r"[^0-9a-f]", "", uuid.lower())


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
