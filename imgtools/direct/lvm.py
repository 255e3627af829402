"""LVM2 volume groups: which exist, and their logical volumes as streams.

What the appliance would activate is certain for complete groups of linear, striped and plainly
mirrored volumes; everything else raises DirectUnsupportedError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imgtools.direct.lvm_metadata import SECTOR, PvHeader, Section, parse_text, read_pv
from imgtools.direct.streams import BlockStream, Joined, Window
from imgtools.direct.striping import Striped
from imgtools.errors import DamagedError, DirectUnsupportedError

MAX_LVS = 10_000
MAX_SEGMENTS = 100_000
NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}")  # LVM's own rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Pv:
    """A physical volume found: its device's name and stream, and its header."""

    device: str
    stream: BlockStream
    header: PvHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Lv:
    """A public logical volume; ``devices`` are the PVs its data lies on."""

    name: str
    uuid: str
    stream: BlockStream
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vg:
    """A complete volume group.  ``pv_sizes`` gives the usable bytes of each PV, in order."""

    name: str
    uuid: str
    size: int
    pvs: tuple[Pv, ...]
    pv_sizes: tuple[int, ...]
    lvs: tuple[Lv, ...]


def scan_pv(stream: BlockStream, device: str) -> Pv:
    """Read the physical volume on ``device``."""
    return Pv(device=device, stream=stream, header=read_pv(stream, device))


def assemble(pvs: Sequence[Pv]) -> list[Vg]:
    """Make the volume groups of all physical volumes found, in the order of their first PV.

    Raises DirectUnsupportedError for a group with a missing PV or of a kind whose activation
    is not certain, DamagedError for contradictory metadata.
    """
    by_uuid: dict[str, Pv] = {}
    sections: dict[str, tuple[str, Section]] = {}
    groups: dict[str, tuple[str, str]] = {}
    for pv in pvs:
        if pv.header.uuid in by_uuid:
            other = by_uuid[pv.header.uuid].device
            raise DirectUnsupportedError(f"{pv.device}: same LVM physical volume as {other}")
        by_uuid[pv.header.uuid] = pv
        for text in pv.header.texts:
            if text not in sections:
                sections[text] = _group_section(text, pv.device)
            uuid = _uuid(sections[text][1], pv.device)
            known, where = groups.setdefault(uuid, (text, pv.device))
            if known != text:
                raise DamagedError(f"{pv.device}: its LVM metadata differs from that on {where}")
    return [_group(*sections[text], by_uuid) for text, _ in groups.values()]


def _group_section(text: str, device: str) -> tuple[str, Section]:
    groups = [
        (key, value)
        for key, value in parse_text(text, device).items()
        if isinstance(value, dict) and "extent_size" in value
    ]
    if len(groups) != 1 or not NAME.fullmatch(groups[0][0]):
        raise DamagedError(f"{device}: LVM metadata without exactly one volume group")
    return groups[0]


def _uuid(section: Section, device: str) -> str:
    uuid = section.get("id")
    if not isinstance(uuid, str):
        raise DamagedError(f"{device}: LVM metadata lacks an id")
    return uuid.replace("-", "")


def _group(name: str, section: Section, by_uuid: dict[str, Pv]) -> Vg:
    _refuse_inactive(name, section)
    extent = _number(section, "extent_size") * SECTOR
    reader = _GroupReader(name, section, by_uuid, extent)
    counts = [_number(pv, "pe_count") for pv in reader.pv_sections.values()]
    return Vg(
        name=name,
        uuid=_uuid(section, name),
        size=sum(counts) * extent,
        pvs=tuple(reader.pvs.values()),
        pv_sizes=tuple(count * extent for count in counts),
        lvs=tuple(reader.public_lvs()),
    )


def _refuse_inactive(name: str, section: Section) -> None:
    """Groups that the appliance would not activate, or not in this way."""
    status = section.get("status", [])
    if "EXPORTED" in status or section.get("system_id") or section.get("lock_type"):
        raise DirectUnsupportedError(f"LVM volume group {name}: exported, foreign or shared")
    if "NOAUTOACTIVATE" in section.get("flags", []) or "RESIZEABLE" not in status:
        raise DirectUnsupportedError(f"LVM volume group {name}: is not activated by itself")


def _number(section: Section, key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int) or value < 0:
        raise DamagedError(f"LVM metadata: {key} is missing or not a number")
    return value


def _section(parent: Section, key: str) -> Section:
    value = parent.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_LVS:
        raise DamagedError(f"LVM metadata: {key} is malformed")
    return value


class _GroupReader:
    """Turns one group's metadata into streams."""

    def __init__(self, name: str, section: Section, by_uuid: dict[str, Pv], extent: int) -> None:
        self.name = name
        self.extent = extent
        self.lv_sections = _section(section, "logical_volumes")
        self.pv_sections = _section(section, "physical_volumes")
        self.pvs: dict[str, Pv] = {}
        self.segments = 0
        if not extent:
            raise DamagedError(f"LVM volume group {name}: extent size 0")
        for key, pv_section in self.pv_sections.items():
            pv = by_uuid.get(_uuid(pv_section, name))
            if pv is None or "MISSING" in pv_section.get("status", []) + pv_section.get(
                "flags", []
            ):
                raise DirectUnsupportedError(f"LVM volume group {name}: a disk of it is missing")
            self.pvs[key] = pv

    def public_lvs(self) -> list[Lv]:
        """The logical volumes that ``lvs`` shows and the appliance activates, by name."""
        found = []
        for name, section in sorted(self.lv_sections.items()):
            if not isinstance(section, dict) or not NAME.fullmatch(name):
                raise DamagedError(f"LVM volume group {self.name}: a malformed volume")
            status, flags = section.get("status", []), section.get("flags", [])
            if "VISIBLE" not in status or "ACTIVATION_SKIP" in flags:
                continue
            if "NOAUTOACTIVATE" in flags or "MERGING" in status or "CONVERTING" in status:
                raise DirectUnsupportedError(f"LVM volume {self.name}/{name}: in transition")
            devices: set[str] = set()
            stream = self._lv(name, devices)
            found.append(
                Lv(
                    name=name,
                    uuid=_uuid(section, self.name),
                    stream=stream,
                    devices=tuple(pv.device for pv in self.pvs.values() if pv.device in devices),
                )
            )
        return found

    def _lv(self, name: str, devices: set[str]) -> BlockStream:
        section = self.lv_sections[name]
        count = _number(section, "segment_count")
        self.segments += count
        if self.segments > MAX_SEGMENTS:
            raise DamagedError(f"LVM volume group {self.name}: too many segments")
        parts, extents = [], 0
        for index in range(1, count + 1):
            segment = _section(section, f"segment{index}")
            if _number(segment, "start_extent") != extents:
                raise DamagedError(f"LVM volume {self.name}/{name}: segments do not follow on")
            part = self._segment(name, segment, devices)
            extents += _number(segment, "extent_count")
            parts.append(part)
        if not parts:
            raise DamagedError(f"LVM volume {self.name}/{name}: no segments")
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _segment(self, lv: str, segment: Section, devices: set[str]) -> BlockStream:
        kind = segment.get("type")
        size = _number(segment, "extent_count") * self.extent
        if kind not in ("striped", "linear") or not size:
            raise DirectUnsupportedError(f"LVM volume {self.name}/{lv}: a {kind} segment")
        stripes = segment.get("stripes", [])
        count = _number(segment, "stripe_count")
        if len(stripes) != 2 * count or not count or size % count:
            raise DamagedError(f"LVM volume {self.name}/{lv}: malformed stripes")
        legs = [
            self._extents(lv, stripes[2 * index], stripes[2 * index + 1], size // count, devices)
            for index in range(count)
        ]
        if count == 1:
            return legs[0]
        return Striped(legs, _number(segment, "stripe_size") * SECTOR)

    def _extents(
        self, lv: str, pv_key: object, first: object, size: int, devices: set[str]
    ) -> BlockStream:
        if not isinstance(pv_key, str) or not isinstance(first, int) or pv_key not in self.pvs:
            raise DirectUnsupportedError(f"LVM volume {self.name}/{lv}: built on other volumes")
        pv = self.pvs[pv_key]
        start = _number(self.pv_sections[pv_key], "pe_start") * SECTOR + first * self.extent
        if first < 0 or start + size > pv.stream.size:
            raise DamagedError(f"LVM volume {self.name}/{lv}: lies outside {pv.device}")
        devices.add(pv.device)
        return Window(pv.stream, start, size)
