"""The instant appliance answers every call as the stock one does, on every kind of disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fixtures
from tests.appliance.ways import Asker, Drive, Way, answers_of, launched, scratch

pytestmark = [pytest.mark.appliance, pytest.mark.instant]

PASSPHRASE = fixtures.PASSPHRASE
MIB = 1 << 20


def fixture_drives(*names: str) -> list[Drive]:
    """All disks of the fixtures, in order, by their own format."""
    formats = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhd": "vpc", ".vhdx": "vhdx"}
    return [
        Drive(path=path, format=formats.get(path.suffix, "raw"))
        for name in names
        for path in fixtures.disks(name)
    ]


# --- what is asked -------------------------------------------------------------------------------


def look_around(ask: Asker) -> None:
    """Everything that lists or inspects, then every filesystem from inside."""
    ask.learn_arrays()
    for name in (
        *("list_devices", "list_partitions", "list_filesystems", "list_md_devices"),
        *("list_dm_devices", "list_ldm_volumes", "list_ldm_partitions", "list_disk_labels"),
        *("lvs", "vgs", "pvs", "lvs_full", "vgs_full", "pvs_full"),
    ):
        ask(name)
    for device in ask.handle.list_devices():
        look_at_device(ask, device)
    for md in sorted(ask.handle.list_md_devices(), key=ask.rename):
        ask("md_detail", md)
        ask.note("md_stat", len(ask.quietly("md_stat", md)))
    filesystems = ask.handle.list_filesystems()
    for root in sorted(ask("inspect_os")):
        look_at_guest(ask, root)
    for mountable, kind in sorted(filesystems.items(), key=ask.rename):
        look_at_filesystem(ask, mountable, kind)


def look_at_device(ask: Asker, device: str) -> None:
    for name in ("blockdev_getsize64", "blockdev_getss", "blockdev_getro"):
        ask(name, device)
    if ask("part_get_parttype", device) == "gpt":  # for another table sgdisk invents one
        ask("part_get_disk_guid", device)
    ask("part_list", device)
    rows = ask.answers[-1][2]
    for row in rows[-1:] if isinstance(rows, list) else []:
        for name in ("part_get_bootable", "part_get_name", "part_get_gpt_type", "part_get_mbr_id"):
            ask(name, device, row["part_num"])


def look_at_guest(ask: Asker, root: str) -> None:
    for name in ("distro", "arch", "product_name", "hostname", "mountpoints", "osinfo"):
        ask(f"inspect_get_{name}", root)


def look_at_filesystem(ask: Asker, mountable: str, kind: str) -> None:
    for name in ("vfs_label", "vfs_uuid"):
        ask(name, mountable)
    if kind in ("swap", "unknown") or isinstance(ask("mount_ro", mountable, "/"), str):
        return
    ask("statvfs", "/")
    found = [f"/{path}" for folder in ("", "etc/") for path in listed(ask, f"/{folder}")]
    for path in found[:1]:
        ask("lstatns", path)
        ask("lgetxattrs", path)
    for path in {"/etc/hostname": 1, **dict.fromkeys(found[-1:])}:
        ask("checksum", "sha256", path)
    if kind == "btrfs":
        ask("btrfs_subvolume_list", "/")
        ask("btrfs_subvolume_get_default", "/")
    ask("umount_all")


def listed(ask: Asker, folder: str) -> list[str]:
    """The names in a folder, with the folder."""
    found = ask("ls", folder)
    return [f"{folder}{name}".strip("/") for name in found] if isinstance(found, list) else []


def open_luks(ask: Asker) -> None:
    """Every LUKS container with the right key, then all of it; a wrong key fails alike."""
    for device, kind in ask("list_filesystems").items():
        if kind != "crypto_LUKS":
            continue
        ask("cryptsetup_open", device, "not the key", "wrong")
        ask("luks_uuid", device)
        name = "open" + re.sub(r"\W", "", device.removeprefix("/dev/"))
        ask("cryptsetup_open", device, PASSPHRASE, name)
    ask("lvm_scan", True)
    look_around(ask)


# --- what is written ---------------------------------------------------------------------------


# Given out by the kernel in the order in which drivers and devices came up.
NUMBERS = ("st_dev", "fsid", "lv_kernel_major", "lv_kernel_minor")


def no_numbers(answer: Any) -> Any:
    """The answer without the kernel's dynamic device numbers, and errors without device names."""
    if isinstance(answer, dict):
        return {
            key: no_numbers(value)
            for key, value in answer.items()
            if key not in NUMBERS and not key.startswith("device_dev_")  # md_detail's members
        }
    if isinstance(answer, list):
        return [no_numbers(value) for value in answer]
    if isinstance(answer, str):
        # In a stock appliance the device in parted's message is one further on whenever the
        # appliance's root was found before it.
        return re.sub(r"parted: /dev/sd[a-z]+: parted.*", "parted", answer)
    return answer


def no_uuids(answer: Any) -> Any:
    """The answer with every identifier that a tool invented replaced by its shape."""
    if isinstance(answer, dict):
        return {key: no_uuids(value) for key, value in answer.items() if "uuid" not in key}
    if isinstance(answer, list):
        return [no_uuids(value) for value in answer]
    if isinstance(answer, str):
        return re.sub(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "UUID", answer)
    return answer


def write_all(ask: Asker) -> None:
    """Partition, format, LVM, MD, LUKS, btrfs and discard on six blank disks."""
    ask("part_init", "/dev/sda", "gpt")
    for number, kind in enumerate(("ext4", "xfs", "vfat", "ntfs", "btrfs"), 1):
        start = 2048 + (number - 1) * 600_000
        ask("part_add", "/dev/sda", "p", start, start + 599_999)
        ask("mkfs", kind, f"/dev/sda{number}")
        ask("set_label", f"/dev/sda{number}", f"LABEL{number}")
        ask("mount", f"/dev/sda{number}", "/")
        ask("write", "/hello", b"hello " * 1000)
        ask("mkdir_p", "/a/b")
        ask("checksum", "sha256", "/hello")
        if kind == "btrfs":
            ask("btrfs_subvolume_create", "/sub")
            ask("btrfs_subvolume_snapshot", "/sub", "/snap")
            ask.note("subvolumes", [r["btrfssubvolume_path"] for r in ask.quietly(
                "btrfs_subvolume_list", "/")])  # fmt: skip
        if kind in ("ext4", "xfs"):
            ask("fstrim", "/")
        ask("umount_all")
    ask("mkswap", "/dev/sdb", label="swapped")
    ask("wipefs", "/dev/sdb")
    ask("pvcreate", "/dev/sdb")
    ask("pvcreate", "/dev/sdc")
    ask("vgcreate", "vg", ["/dev/sdb", "/dev/sdc"])
    ask("lvcreate", "one", "vg", 64)
    ask("lvcreate", "two", "vg", 32)
    ask("mkfs", "ext4", "/dev/vg/one")
    ask("lvresize", "/dev/vg/one", 96)
    ask("resize2fs", "/dev/vg/one")
    ask("blockdev_getsize64", "/dev/vg/one")
    ask("lvremove", "/dev/vg/two")
    ask("lvs")
    ask("lvrename", "/dev/vg/one", "/dev/vg/uno")
    ask("vg_activate_all", False)
    ask("lvs")
    ask("vg_activate_all", True)
    ask("md_create", "mirror", ["/dev/sdd", "/dev/sde"], level="raid1")
    ask("list_md_devices")
    ask("mkfs", "ext4", "/dev/md127")
    ask("luks_format", "/dev/sdf", PASSPHRASE, 0)
    ask("cryptsetup_open", "/dev/sdf", PASSPHRASE, "secret")
    ask("mkfs", "ext4", "/dev/mapper/secret")
    ask("mount", "/dev/mapper/secret", "/")
    ask("write", "/inside", b"secret")
    ask("umount_all")
    ask("cryptsetup_close", "/dev/mapper/secret")
    ask("list_filesystems")
    ask("list_dm_devices")
    ask("blkdiscard", "/dev/sda")
    ask("list_partitions")


# --- the cases -------------------------------------------------------------------------------


def blank_disks(folder: Path) -> list[Drive]:
    size = 1600 * MIB
    return [scratch(folder, "0", size, discard="enable")] + [
        scratch(folder, str(index), 160 * MIB, discard="besteffort") for index in range(1, 6)
    ]


def labelled(folder: Path) -> list[Drive]:
    """Labels, sector sizes, read-only disks and formats."""
    drives = fixture_drives("gpt", "mbr-logical", "qcow2-chain", "vmdk", "iso9660")
    options: list[dict[str, Any]] = [{} for _ in drives]
    options[0] |= {"label": "system"}
    options[1] |= {"label": "data", "readonly": True}
    options[-1] |= {"readonly": True}
    named = [
        Drive(path=drive.path, format=drive.format, options=extra)
        for drive, extra in zip(drives, options, strict=True)
    ]
    return [
        *named,
        scratch(folder, "4k", 64 * MIB, blocksize=4096, label="fourk"),
        scratch(folder, "plain", 64 * MIB, cachemode="unsafe"),
    ]


def many(folder: Path) -> list[Drive]:
    """25 disks, each of another size, so that a wrong order shows."""
    return [scratch(folder, str(index), (index + 1) * MIB) for index in range(25)]


def sizes(ask: Asker) -> None:
    """What is asked of many disks."""
    ask("list_filesystems")
    for device in ask("list_devices"):
        ask("blockdev_getsize64", device)


def one_member(folder: Path) -> list[Drive]:
    """A degraded mirror, and LVM on a mirror of which one member is missing."""
    return [*fixture_drives("md-raid1-degraded"), fixture_drives("md-lvm")[0]]


def sectors_of_four_k(ask: Asker) -> None:
    """A disk of 4096-byte sectors is partitioned, formatted and read in both."""
    device = next(d for d in ask.handle.list_devices() if ask("blockdev_getss", d) == 4096)
    ask("part_disk", device, "gpt")
    ask("part_list", device)
    ask("mkfs", "ext4", f"{device}1")
    ask("vfs_type", f"{device}1")
    look_around_but(ask, device)


def look_around_but(ask: Asker, fresh: str) -> None:
    """Look around without the filesystem just made, whose UUID is new each time."""
    ask("wipefs", f"{fresh}1")
    ask("part_set_disk_guid", fresh, "01234567-89AB-4CDE-8F01-23456789ABCD")
    ask("part_set_gpt_guid", fresh, 1, "11234567-89AB-4CDE-8F01-23456789ABCD")
    look_around(ask)


Case = tuple[Callable[[Path], list[Drive]], Callable[[Asker], None]]


def of(*names: str) -> Callable[[Path], list[Drive]]:
    return lambda _folder: fixture_drives(*names)


CASES: dict[str, Case] = {
    "debian-lvm": (of("debian-lvm"), look_around),
    "filesystems": (
        of("ext4", "xfs", "btrfs", "ntfs", "fat32", "exfat", "squashfs", "swap", "f2fs"),
        look_around,
    ),
    "unclean": (of("ext4-unclean", "xfs-unclean", "lvm-unclean", "udf"), look_around),
    "btrfs-raid1": (of("btrfs-raid1", "btrfs-unclean"), look_around),
    "lvm": (of("lvm-multi", "lvm-snapshot", "lvm-raid1"), look_around),
    "lvm-twins": (of("lvm-twins"), look_around),
    "md": (of("md-raid1", "md-raid1-0.90", "md-raid5", "md-linear", "md-lvm"), look_around),
    "md-degraded": (one_member, look_around),
    "luks": (of("luks1", "luks2", "luks2-4k", "lvm-on-luks", "luks-on-lvm"), open_luks),
    "labels-formats": (labelled, sectors_of_four_k),
    "many-disks": (many, sizes),
    "writing": (blank_disks, write_all),
}


# The cases in which each appliance makes identifiers of its own.
INVENTING = ("labels-formats", "writing")


# A minute and more each, nearly all of it the stock side: `make equality` runs these as well.
LONG = ("debian-lvm", "filesystems", "md", "luks", "labels-formats", "writing", "btrfs-raid1")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.equality if n in LONG else ()) for n in CASES],
)
def test_every_answer_is_the_same(name: str, tmp_path: Path) -> None:
    make, script = CASES[name]
    drives = make(tmp_path)
    with ThreadPoolExecutor(2) as pool:  # one of the two sits in its machine at any time
        running = [
            pool.submit(answers_of, way, drives, tmp_path, script) for way in ("instant", "stock")
        ]
    instant, stock = (job.result() for job in running)
    clean = no_uuids if name in INVENTING else (lambda answer: answer)
    assert len(stock) > 5
    for ours, theirs in zip(instant, stock, strict=False):
        assert ours[:2] == theirs[:2]
        assert clean(no_numbers(ours[2])) == clean(no_numbers(theirs[2])), ours[:2]
    assert len(instant) == len(stock)


def test_verbose_and_trace_say_the_same(tmp_path: Path) -> None:
    """The daemon's own lines and the trace of calls; times and addresses left out."""
    drives = fixture_drives("gpt")

    def heard(way: Way) -> list[str]:
        with launched(way, drives, tmp_path, verbose=True) as (handle, said):
            del said[:]
            handle.list_filesystems()
            handle.mount_ro("/dev/sda1", "/")
            handle.ls("/")
        text = re.sub(r"0x[0-9a-f]+", "", "".join(said))
        # Its own commands differ in the appliance's root, which is vda here and the last sd there.
        return re.findall(r"guestfsd: <= \w+|list_filesystems = .*?\]", text)

    instant, stock = heard("instant"), heard("stock")
    assert any("guestfsd: <= mount_ro" in line for line in instant)
    assert instant == stock
