"""What the appliance's kernel sees on the disks, asked in one script.

libguestfs's own list calls cost a fifth of a second each (every one waits for udev) and one bad
device fails the whole of ``list_filesystems``.  One script in the appliance asks lsblk, /sys,
blkid, mdadm, lvm and btrfs at once, each device on its own, and prints sections, parsed here.
``-o udev`` makes blkid print labels with every odd byte escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_DEVICES = 4096

SCRIPT = r"""
export LC_ALL=C
udevadm settle >/dev/null 2>&1
rootdev=$(awk '$2 == "/" && $1 ~ "^/dev/" {print $1; exit}' /proc/mounts)
rootdev=$(readlink -f "${rootdev:-/dev/none}")
if [ ! -b "$rootdev" ]; then
    number=$(mountpoint -d /)
    rootdev=/dev/$(basename "$(readlink "/sys/dev/block/$number")")
fi
echo "@@root $rootdev"
echo "@@order"
for link in $(ls -1v /dev/disk/by-path 2>/dev/null | grep -v -e '-part[0-9]*$'); do
    readlink -f "/dev/disk/by-path/$link"
done
echo "@@lsblk"
lsblk -J -l -b -o KNAME,PATH,TYPE,SIZE,PTTYPE,PARTTYPE,PARTUUID,PARTLABEL,PARTFLAGS,PKNAME
echo "@@sys"
for entry in /sys/class/block/*; do
    read start 2>/dev/null < "$entry/start" || start=
    read number 2>/dev/null < "$entry/partition" || number=
    read uuid 2>/dev/null < "$entry/dm/uuid" || uuid=
    read name 2>/dev/null < "$entry/dm/name" || name=
    read broken 2>/dev/null < "$entry/md/degraded" || broken=
    slaves=$(ls "$entry/slaves" 2>/dev/null | tr '\n' ',')
    echo "${entry##*/}|$start|$number|$uuid|$name|$broken|$slaves"
done
for device in $(lsblk -l -n -o PATH); do
    [ "$device" = "$rootdev" ] && continue
    case $device in /dev/loop*|/dev/ram*|/dev/sr*|/dev/fd*|/dev/nbd*|/dev/zram*) continue;; esac
    if ls -d "/sys/class/block/${device##*/}/${device##*/}"* >/dev/null 2>&1; then continue; fi
    echo "@@blkid $device"
    timeout 60 blkid -c /dev/null -o udev "$device" > /tmp/imgtools.blkid
    cat /tmp/imgtools.blkid
    if grep -q '^ID_FS_TYPE=crypto_LUKS' /tmp/imgtools.blkid; then
        echo "@@luks $device $(od -An -tu1 -j6 -N2 "$device")"
    fi
    if grep -q '^ID_FS_TYPE=btrfs' /tmp/imgtools.blkid; then
        mkdir -p /tmp/imgtools.mnt
        echo "@@btrfs $device"
        if timeout 120 mount -t btrfs -o ro "$device" /tmp/imgtools.mnt 2>&1; then
            btrfs subvolume get-default /tmp/imgtools.mnt
            echo "@@subvolumes $device"
            btrfs subvolume list /tmp/imgtools.mnt
            umount /tmp/imgtools.mnt
        fi
    fi
done
for array in /sys/block/md*; do
    [ -d "$array/md" ] || continue
    echo "@@md ${array##*/}"
    mdadm -D --export "/dev/${array##*/}"
done
if grep -q LVM2_member /tmp/imgtools.blkid || lsblk -l -n -o FSTYPE | grep -q LVM2_member; then
    for kind in pvs vgs lvs; do
        case $kind in
            pvs) columns=pv_name,pv_uuid,pv_size,vg_name,vg_uuid;;
            vgs) columns=vg_name,vg_uuid,vg_size,vg_missing_pv_count;;
            lvs) columns=vg_name,vg_uuid,lv_name,lv_uuid,lv_size,lv_role,lv_dm_path
                 columns=$columns,lv_skip_activation;;
        esac
        echo "@@lvm $kind"
        lvm $kind -q --readonly --reportformat json --units b --nosuffix \
            -o $columns 2>/tmp/imgtools.err
        echo "@@lvmerr $kind"
        cat /tmp/imgtools.err
    done
fi
echo "@@end"
exit 0
"""


@dataclass(frozen=True, slots=True)
class Section:
    """One ``@@kind argument`` section and its lines."""

    kind: str
    argument: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Device:
    """A block device: ``path`` is libguestfs's name for it, ``facts`` are blkid's."""

    kname: str
    path: str
    type: str
    size: int
    table: str
    parent: str
    number: int
    start: int
    row: dict[str, Any]
    dm_uuid: str = ""
    dm_name: str = ""
    degraded: bool = False
    slaves: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Survey:
    """The parsed answer.  ``devices`` by kernel name, in libguestfs's order, ours only."""

    devices: dict[str, Device]
    order: dict[str, str]
    sections: list[Section]

    def section(self, kind: str, argument: str = "") -> list[str]:
        """The lines of the one section of that kind and argument; empty if there is none."""
        for section in self.sections:
            if (section.kind, section.argument) == (kind, argument):
                return section.lines
        return []

    def arguments(self, kind: str) -> Iterator[tuple[str, list[str]]]:
        """All sections of a kind."""
        return ((s.argument, s.lines) for s in self.sections if s.kind == kind)

    def lvm(self, kind: str, key: str) -> list[dict[str, str]]:
        """The rows of an LVM report; empty if LVM printed none."""
        try:
            rows = json.loads("\n".join(self.section("lvm", kind)))["report"][0][key]
            return [dict(row) for row in rows]
        except (ValueError, KeyError, IndexError, TypeError):
            return []

    def canonical(self, path: str) -> str:
        """libguestfs's name for a kernel's device path (``sd`` names by the bus's order)."""
        found = re.fullmatch(r"/dev/(sd[a-z]+)(\d*)", path)
        if not found:
            return path
        return "/dev/" + self.order.get(found[1], found[1]) + found[2]


def parse_survey(raw: bytes, disks: int) -> Survey:
    """Parse what SCRIPT printed; ``disks`` is how many disks were added."""
    sections = list(_sections(raw.decode("utf-8", errors="replace")))
    by_kind = {section.kind: section for section in reversed(sections)}
    root = by_kind["root"].argument.removeprefix("/dev/")
    order = _order(by_kind["order"].lines, root)
    survey = Survey(devices={}, order=order, sections=sections)
    extra = {line.split("|", 1)[0]: line.split("|") for line in by_kind["sys"].lines}
    facts = {argument: _properties(lines) for argument, lines in survey.arguments("blkid")}
    found = []
    for row in _rows(by_kind["lsblk"].lines)[:MAX_DEVICES]:
        device = _device(row, extra.get(str(row.get("kname"))), facts, survey)
        ours = device.kname != root and device.type not in ("rom", "loop")
        if ours and not re.match(r"(ram|zram|nbd|fd)\d", device.kname):
            found.append(device)
    del disks  # the order of the bus tells them apart; kept for the caller's record
    for device in sorted(found, key=_listing_key):
        survey.devices.setdefault(device.kname, device)
    return survey


def _sections(text: str) -> Iterator[Section]:
    current: Section | None = None
    for line in text.splitlines():
        if line.startswith("@@"):
            if current is not None:
                yield current
            kind, _, argument = line[2:].partition(" ")
            current = Section(kind, argument, [])
        elif current is not None:
            current.lines.append(line)
    if current is not None:
        yield current


def _order(paths: list[str], root: str) -> dict[str, str]:
    """Kernel name to canonical name: probing may finish in another order than the bus's."""
    names = [path.removeprefix("/dev/") for path in paths]
    names = [name for name in dict.fromkeys(names) if name.startswith("sd") and name != root]
    return {name: f"sd{_letters(index)}" for index, name in enumerate(names)}


def _letters(index: int) -> str:
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def disk_index(path: str) -> int | None:
    """The index of the disk ``/dev/sdX`` or of the partition's disk; None for other devices."""
    found = re.match(r"/dev/sd([a-z]+)\d*$", path)
    if not found:
        return None
    index = 0
    for letter in found[1]:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _rows(lines: list[str]) -> list[dict[str, Any]]:
    try:
        rows = json.loads("\n".join(lines))["blockdevices"]
    except (ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if isinstance(row, dict)]


def _device(
    row: dict[str, Any], extra: list[str] | None, facts: dict[str, dict[str, str]], survey: Survey
) -> Device:
    kname, start, number, dm_uuid, dm_name, broken, slaves = [*(extra or []), *[""] * 7][:7]
    path = str(row.get("path") or f"/dev/{row.get('kname')}")
    parent = str(row.get("pkname") or "")
    return Device(
        kname=str(row.get("kname") or kname),
        path=survey.canonical(path),
        type=str(row.get("type") or ""),
        size=_int(row.get("size")),
        table={"dos": "msdos"}.get(str(row.get("pttype")), str(row.get("pttype") or "")),
        parent=survey.canonical(f"/dev/{parent}") if parent else "",
        number=_int(number),
        start=_int(start) * 512,
        row=row,
        dm_uuid=dm_uuid,
        dm_name=dm_name,
        degraded=_int(broken) > 0,
        slaves=tuple(survey.canonical(f"/dev/{name}") for name in slaves.split(",") if name),
        facts=facts.get(path, {}),
    )


def _listing_key(device: Device) -> tuple[object, ...]:
    disk = disk_index(device.path)
    if disk is not None:
        return (0, disk, device.number, "")
    return (1, 0, device.number, device.kname)


def _properties(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def unescape(value: str) -> str:
    r"""Undo udev's ``\xNN`` escapes; bytes that are not UTF-8 survive as surrogates."""
    raw = re.sub(
        rb"\\x([0-9a-fA-F]{2})",
        lambda found: bytes([int(found[1], 16)]),
        value.encode("utf-8", errors="surrogateescape"),
    )
    return raw.decode("utf-8", errors="surrogateescape")


def _int(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
