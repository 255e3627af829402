"""What the appliance's kernel sees on the disks, asked in one script.

libguestfs's own list calls cost a fifth of a second each (every one waits for udev) and one bad
device fails the whole of ``list_filesystems``.  One script in the appliance asks lsblk, /sys,
blkid, mdadm, lvm and btrfs at once, each device on its own, and prints sections, parsed here.
``-o udev`` makes blkid print labels with every odd byte escaped.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

MAX_DEVICES = 4096

ACTIVATE = r"""
lvm vgchange -ay --sysinit >/dev/null 2>/tmp/imgtools.lvm
"""

# Processes are what costs under TCG (50 ms each), so the shell's own means are used where it has
# any, and udev's database (by lsblk) before another probe by blkid.
SCRIPT = r"""
export LC_ALL=C
udevadm settle >/dev/null 2>&1
while read -r source target rest; do
    [ "$target" = / ] && rootdev=$source
done < /proc/mounts
[ -b "$rootdev" ] || rootdev=/dev/$(basename "$(readlink "/sys/dev/block/$(mountpoint -d /)")")
echo "@@root $rootdev"
echo "@@links"
printf '%s\n' /dev/disk/by-path/*
echo "@@targets"
readlink -f /dev/disk/by-path/*
echo "@@lsblk"
lsblk -J -l -b -o KNAME,PATH,TYPE,SIZE,PTTYPE,PARTTYPE,PARTUUID,PARTLABEL,PARTFLAGS,PKNAME,\
FSTYPE,FSVER,LABEL,UUID >/tmp/imgtools.lsblk
while IFS= read -r line; do printf '%s\n' "$line"; done </tmp/imgtools.lsblk
echo "@@sys"
for entry in /sys/class/block/*; do
    case $entry in */loop*|*/ram*|*/sr*|*/fd[0-9]*|*/nbd*|*/zram*) continue;; esac
    start= number= uuid= name= broken= slaves=
    [ -e "$entry/partition" ] && read -r start <"$entry/start" && read -r number <"$entry/partition"
    [ -e "$entry/dm/uuid" ] && read -r uuid <"$entry/dm/uuid" && read -r name <"$entry/dm/name"
    [ -e "$entry/md/degraded" ] && read -r broken <"$entry/md/degraded"
    for slave in "$entry"/slaves/*; do
        [ -e "$slave" ] && slaves="$slaves${slave##*/},"
    done
    echo "${entry##*/}|$start|$number|$uuid|$name|$broken|$slaves"
done
"""

# Arguments: devices without a type in udev's database, btrfs devices, MD arrays, and whether LVM.
DETAILS = r"""
export LC_ALL=C
for device in {unknown}; do
    echo "@@blkid $device"
    timeout 60 blkid -c /dev/null -o udev "$device"
done
for device in {btrfs}; do
    mkdir -p /tmp/imgtools.mnt
    echo "@@btrfs $device"
    # A clone of the one before would be taken for it; the parts of one filesystem need each other.
    case $(btrfs inspect-internal dump-super "$device" | grep ^num_devices) in
        *[!0-9]1) btrfs device scan --forget >/dev/null 2>&1;;
        *) btrfs device scan >/dev/null 2>&1;;
    esac
    if timeout 120 mount -t btrfs -o ro,subvolid=5 "$device" /tmp/imgtools.mnt 2>&1; then
        btrfs subvolume get-default /tmp/imgtools.mnt
        echo "@@subvolumes $device"
        btrfs subvolume list /tmp/imgtools.mnt
        umount /tmp/imgtools.mnt
    fi
done
for array in {arrays}; do
    echo "@@md $array"
    mdadm -D --export "/dev/$array"
done
for once in {lvm}; do
    echo "@@lvm"
    lvm fullreport -q --readonly --reportformat json --units b --nosuffix \
        --configreport pv -o pv_name,pv_uuid,pv_size,vg_name,vg_uuid \
        --configreport vg -o vg_name,vg_uuid,vg_size,vg_missing_pv_count \
        --configreport lv -o vg_name,vg_uuid,lv_name,lv_uuid,lv_size,lv_role,lv_dm_path,\
lv_skip_activation --configreport pvseg -o pvseg_start --configreport seg -o seg_start \
        2>/tmp/imgtools.err
    echo "@@lvmerr"
    cat /tmp/imgtools.lvm /tmp/imgtools.err 2>/dev/null
done
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
    kernel_path: str
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

    def lvm(self, kind: str) -> list[dict[str, str]]:
        """The rows of a kind (``pv``, ``vg``, ``lv``) of LVM's report; empty if there is none."""
        try:
            reports = json.loads("\n".join(self.section("lvm")))["report"]
            rows = [dict(row) for report in reports for row in report.get(kind, [])]
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
        return [row for row in rows if all(isinstance(value, str) for value in row.values())]

    def canonical(self, path: str) -> str:
        """libguestfs's name for a kernel's device path (``sd`` names by the bus's order)."""
        found = re.fullmatch(r"/dev/(sd[a-z]+)(\d*)", path)
        if not found:
            return path
        return "/dev/" + self.order.get(found[1], found[1]) + found[2]


def kernel_path(survey: Survey, path: str) -> str:
    """The kernel's own name for a device that `Survey.canonical` named."""
    return next((d.kernel_path for d in survey.devices.values() if d.path == path), path)


def parse_survey(raw: bytes) -> Survey:
    """Parse what SCRIPT printed."""
    sections = list(_sections(raw))
    by_kind = {section.kind: section for section in reversed(sections)}
    root = by_kind["root"].argument.removeprefix("/dev/")
    survey = Survey(
        devices={},
        order=_order(by_kind["links"].lines, by_kind["targets"].lines, root),
        sections=sections,
    )
    extra = {line.split("|", 1)[0]: line.split("|") for line in by_kind["sys"].lines}
    rows = [row for row in _rows(by_kind["lsblk"].lines) if str(row.get("kname")) in extra]
    paths = {str(row.get("kname")): survey.canonical(str(row.get("path"))) for row in rows}
    found = [_device(row, extra[str(row["kname"])], paths) for row in rows[:MAX_DEVICES]]
    for device in sorted(found, key=_listing_key):
        if device.kname != root:
            survey.devices.setdefault(device.kname, device)
    return survey


def details_script(survey: Survey) -> str:
    """The second script: what only some devices need."""
    devices = list(survey.devices.values())
    partitioned = {device.parent for device in devices if device.number}
    plain = [device for device in devices if device.path not in partitioned]
    types = [device.facts.get("ID_FS_TYPE", "") for device in devices]
    words = {
        "unknown": [d.kernel_path for d in plain if not d.facts.get("ID_FS_TYPE") and d.size],
        "btrfs": [d.kernel_path for d in plain if d.facts.get("ID_FS_TYPE") == "btrfs"],
        "arrays": [d.kname for d in devices if re.fullmatch(r"md\d+", d.kname)],
        "lvm": ["lvm"] if "LVM2_member" in types else [],
    }
    script = DETAILS
    for name, items in words.items():
        script = script.replace(f"{{{name}}}", " ".join(shlex.quote(item) for item in items))
    return script


def with_details(survey: Survey, raw: bytes) -> Survey:
    """The survey with what the second script printed."""
    sections = list(_sections(raw))
    probed = {s.argument: _properties(s.lines) for s in sections if s.kind == "blkid"}
    devices = {
        kname: replace(device, facts=probed.get(device.kernel_path) or device.facts)
        for kname, device in survey.devices.items()
    }
    return replace(survey, devices=devices, sections=[*survey.sections, *sections])


def _sections(raw: bytes) -> Iterator[Section]:
    current: Section | None = None
    for line in raw.decode("utf-8", errors="surrogateescape").split("\n"):
        if line.startswith("@@"):
            if current is not None:
                yield current
            kind, _, argument = line[2:].partition(" ")
            current = Section(kind, argument, [])
        elif current is not None:
            current.lines.append(line)
    if current is not None:
        yield current


def _order(links: list[str], targets: list[str], root: str) -> dict[str, str]:
    """Kernel name to canonical name: probing may finish in another order than the bus's."""
    pairs = sorted(zip(links, targets, strict=False), key=lambda pair: _natural(pair[0]))
    names = [target.removeprefix("/dev/") for link, target in pairs if "-part" not in link]
    names = [name for name in dict.fromkeys(names) if name.startswith("sd") and name != root]
    return {name: f"sd{_letters(index)}" for index, name in enumerate(names)}


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(n or -1), word) for n, word in re.findall(r"(\d+)|(\D+)", text)]


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


def disks_below(survey: Survey, device: Device) -> tuple[int, ...]:
    """Indexes of all disks that ``device`` lies on, sorted."""
    by_name = {one.path: one for one in survey.devices.values()}
    found: set[int] = set()
    todo = [device]
    seen = set()
    while todo:
        one = todo.pop()
        if one.kname in seen:
            continue
        seen.add(one.kname)
        index = disk_index(one.path)
        if index is not None:
            found.add(index)
        todo += [by_name[name] for name in (*one.slaves, one.parent) if name in by_name]
    return tuple(sorted(found))


def groups_in_disk_order(survey: Survey) -> list[tuple[str, str]]:
    """The (name, uuid) of each volume group, by the first disk and partition it lies on."""
    by_path = {one.kernel_path: one for one in survey.devices.values()}
    keys: dict[tuple[str, str], tuple[object, ...]] = {}
    for row in survey.lvm("pv"):
        device = by_path.get(row["pv_name"])
        if not row["vg_uuid"] or device is None:
            continue
        key = (disks_below(survey, device), device.number, device.kname)
        group = (row["vg_name"], row["vg_uuid"])
        keys[group] = min(key, keys.get(group, key))
    return sorted(keys, key=lambda group: keys[group])


def _rows(lines: list[str]) -> list[dict[str, Any]]:
    try:
        rows = json.loads("\n".join(lines), strict=False)["blockdevices"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [row for row in rows if isinstance(row, dict)]


_FACTS = {"fstype": "ID_FS_TYPE", "fsver": "ID_FS_VERSION", "label": "LABEL", "uuid": "ID_FS_UUID"}


def _device(row: dict[str, Any], extra: list[str], paths: dict[str, str]) -> Device:
    kname, start, number, dm_uuid, dm_name, broken, slaves = [*extra, *[""] * 7][:7]
    parent = str(row.get("pkname") or "")
    return Device(
        kname=kname,
        path=paths[kname],
        kernel_path=str(row.get("path")),
        type=str(row.get("type") or ""),
        size=_int(row.get("size")),
        table={"dos": "msdos"}.get(str(row.get("pttype")), str(row.get("pttype") or "")),
        parent=paths.get(parent, ""),
        number=_int(number),
        start=_int(start) * 512,
        row=row,
        dm_uuid=dm_uuid,
        dm_name=dm_name,
        degraded=_int(broken) > 0,
        slaves=tuple(paths[name] for name in slaves.split(",") if name in paths),
        facts={fact: str(row[name]) for name, fact in _FACTS.items() if row.get(name)},
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
