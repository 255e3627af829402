"""The instant appliance answers every call as the stock one does, on every kind of disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fixtures
from tests.appliance.ways import WAYS, Answer, Asker, Drive, Way, answers_of, launched, scratch

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
    """Everything that lists, then every filesystem from inside.

    A call takes 0.2 s and more without KVM, and a listing many seconds: each is made once.
    """
    ask.learn_arrays()
    devices, arrays = ask("list_devices"), ask("list_md_devices")
    filesystems = ask("list_filesystems")
    for name in (
        *("list_partitions", "list_dm_devices", "list_disk_labels"),
        *("list_ldm_volumes", "list_ldm_partitions"),
        *("lvs", "vgs", "pvs", "lvs_full", "vgs_full", "pvs_full"),
    ):
        ask(name)
    for device in devices:
        for name in ("blockdev_getsize64", "blockdev_getss", "blockdev_getro"):
            ask(name, device)
    for md in sorted(arrays, key=ask.rename):
        ask("md_detail", md)
        ask("md_stat", md)
    met = set()
    for mountable, kind in sorted(filesystems.items(), key=lambda one: ask.rename(one[0])):
        ask("vfs_uuid", mountable)
        if kind not in ("swap", "unknown"):
            look = glance_at_filesystem if kind in met else look_at_filesystem
            look(ask, mountable)
        met.add(kind)


def look_at_table(ask: Asker, device: str) -> None:
    """The table itself, and its last partition."""
    names = ["part_get_bootable", "part_get_mbr_id"]
    if ask("part_get_parttype", device) == "gpt":  # for another table sgdisk invents one
        ask("part_get_disk_guid", device)
        names = ["part_get_bootable", "part_get_name", "part_get_gpt_type"]
    rows = ask("part_list", device)
    for row in rows[-1:] if isinstance(rows, list) else []:
        for name in names:
            ask(name, device, row["part_num"])


def inspect(ask: Asker) -> None:
    """What inspection finds, then all the rest; 5 s and more for each guest."""
    ask.learn_arrays()
    for root in sorted(ask("inspect_os"), key=ask.rename):
        for name in ("distro", "arch", "product_name", "hostname", "mountpoints", "osinfo"):
            ask(f"inspect_get_{name}", root)
    look_around(ask)


def look_at_filesystem(ask: Asker, mountable: str) -> None:
    """The first of its kind in a case."""
    ask("vfs_label", mountable)
    if isinstance(ask("mount_ro", mountable, "/"), str):
        return
    ask("statvfs", "/")
    found = [f"/{path}" for folder in ("", "etc/") for path in listed(ask, f"/{folder}")]
    for path in found[:1]:
        ask("lstatns", path)
        ask("lgetxattrs", path)
    for path in {"/etc/hostname": 1, **dict.fromkeys(found[-1:])}:
        ask("checksum", "sha256", path)
    if ask("vfs_type", mountable) == "btrfs":
        ask("btrfs_subvolume_list", "/")
        ask("btrfs_subvolume_get_default", "/")
    ask("umount_all")


def glance_at_filesystem(ask: Asker, mountable: str) -> None:
    """Another one: that it is the right one, and can be read."""
    ask("mount_ro", mountable, "/")
    ask("ls", "/")
    ask("checksum", "sha256", "/etc/hostname")
    ask("umount_all")


def listed(ask: Asker, folder: str) -> list[str]:
    """The names in a folder, with the folder."""
    found = ask("ls", folder)
    return [f"{folder}{name}".strip("/") for name in found] if isinstance(found, list) else []


def open_luks(ask: Asker) -> None:
    """Every LUKS container with the right key, then all of it; a wrong key fails alike."""
    devices = [*ask("list_partitions"), *ask("lvs")]
    locked = [device for device in devices if ask("vfs_type", device) == "crypto_LUKS"]
    ask("cryptsetup_open", locked[0], "not the key", "wrong")
    for device in locked:
        ask("luks_uuid", device)
        name = "open" + re.sub(r"\W", "", device.removeprefix("/dev/"))
        ask("cryptsetup_open", device, PASSPHRASE, name)
    ask("lvm_scan", True)
    look_around(ask)


# --- what is compared --------------------------------------------------------------------------


# Given out by the kernel in the order in which drivers and devices came up.
NUMBERS = ("st_dev", "fsid", "lv_kernel_major", "lv_kernel_minor")


def no_numbers(answer: Any) -> Any:
    """The answer without the kernel's dynamic device numbers."""
    if isinstance(answer, dict):
        return {key: no_numbers(value) for key, value in answer.items() if key not in NUMBERS}
    return [no_numbers(value) for value in answer] if isinstance(answer, list) else answer


# In the order of the kernel's names of the disks, which follow from which disk was ready first:
# libguestfs translates the names, on stock as on instant, and leaves the order.
UNORDERED = ("pvs", "pvs_full")


def comparable(answer: Answer) -> Any:
    """The answer without what differs between two stock launches."""
    value = no_numbers(answer[2])
    if answer[0] in UNORDERED and isinstance(value, list):
        value = sorted(value, key=repr)
    return value


# --- what is written ---------------------------------------------------------------------------


def write_all(ask: Asker) -> None:
    """Partition, format, LVM, MD, LUKS, btrfs and discard on six blank disks."""
    write_filesystems(ask, "/dev/sda")
    write_volumes(ask, "/dev/sdb", "/dev/sdc")
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
    for name in ("list_filesystems", "list_partitions", "list_dm_devices"):
        ask(name)


def write_filesystems(ask: Asker, disk: str) -> None:
    """One of each kind on a partition of its own; then all is discarded."""
    ask("part_init", disk, "gpt")
    for number, kind in enumerate(("ext4", "xfs", "vfat", "ntfs", "btrfs"), 1):
        start = 2048 + (number - 1) * 600_000
        ask("part_add", disk, "p", start, start + 599_999)
        ask("mkfs", kind, f"{disk}{number}")
        ask("vfs_type", f"{disk}{number}")
        ask("set_label", f"{disk}{number}", f"LABEL{number}")
        ask("mount", f"{disk}{number}", "/")
        ask("write", "/hello", b"hello " * 1000)
        ask("mkdir_p", "/a/b")
        ask("checksum", "sha256", "/hello")
        if kind == "btrfs":
            ask("btrfs_subvolume_create", "/sub")
            ask("btrfs_subvolume_snapshot", "/sub", "/snap")
            ask("btrfs_subvolume_list", "/")
        if kind in ("ext4", "xfs"):
            ask("fstrim", "/")
        ask("umount_all")
    ask("part_list", disk)
    ask("blkdiscard", disk)
    ask("blockdev_rereadpt", disk)


def write_volumes(ask: Asker, first: str, second: str) -> None:
    """A volume group over two disks; volumes are made, grown, renamed, removed, switched."""
    ask("mkswap", first, label="swapped")
    ask("wipefs", first)
    ask("pvcreate", first)
    ask("pvcreate", second)
    ask("vgcreate", "vg", [first, second])
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


# --- the cases -------------------------------------------------------------------------------


def blank_disks(folder: Path) -> list[Drive]:
    size = 1600 * MIB
    return [scratch(folder, "0", size, discard="enable")] + [
        scratch(folder, str(index), 160 * MIB, discard="besteffort") for index in range(1, 6)
    ]


def labelled(folder: Path) -> list[Drive]:
    """Labels, which reach the guest as serial numbers; sector sizes, read-only disks, formats."""
    gpt, mbr, vmdk, iso = fixture_drives("gpt", "mbr-logical", "vmdk", "iso9660")
    return [
        replace(gpt, options={"label": "system"}),
        replace(mbr, options={"label": "data", "readonly": True}),
        replace(vmdk, copied=True),
        replace(iso, options={"readonly": True}),
        scratch(folder, "4k", 64 * MIB, blocksize=4096, label="fourk"),
        replace(scratch(folder, "plain", 64 * MIB, cachemode="unsafe"), copied=True),
    ]


def many(folder: Path) -> list[Drive]:
    """25 disks, each of another size, so that a wrong order shows."""
    return [scratch(folder, str(index), (index + 1) * MIB) for index in range(25)]


def sizes(ask: Asker) -> None:
    """What is asked of many disks."""
    for device in ask("list_devices"):
        ask("blockdev_getsize64", device)


def one_member(folder: Path) -> list[Drive]:
    """Degraded mirrors, old and new, a RAID 5 without its last disk, and LVM on half a mirror."""
    half = [fixture_drives(name)[:1] for name in ("md-raid1-0.90", "md-lvm")]
    return [
        *fixture_drives("md-raid1-degraded"),
        *half[0],
        *fixture_drives("md-raid5")[:2],
        *half[1],
    ]


def sectors_of_four_k(ask: Asker) -> None:
    """A disk of 4096-byte sectors is partitioned, formatted and read in both."""
    devices = ask("list_devices")
    for disk in devices:
        look_at_table(ask, disk)
    device = next(disk for disk in devices if ask("blockdev_getss", disk) == 4096)
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


# The longest first: two machines run at a time.
CASES: dict[str, Case] = {
    "filesystems": (
        # Inspection is not asked about btrfs-raid1: which of its two disks a UUID in fstab leads to
        # is up to udev's workers, on a stock appliance too.
        of(
            *("ext4", "xfs", "btrfs-raid1", "ntfs", "fat32", "squashfs", "swap", "f2fs", "udf"),
            *("ufs1", "ext4-unclean", "xfs-unclean", "btrfs-unclean", "lvm-unclean"),
        ),
        look_around,
    ),
    "writing": (blank_disks, write_all),
    "labels-formats": (labelled, sectors_of_four_k),
    "guests": (of("debian-lvm", "btrfs"), inspect),
    "luks": (of("luks1", "luks2", "luks2-4k", "lvm-on-luks", "luks-on-lvm"), open_luks),
    "md": (of("md-raid1", "md-raid1-0.90", "md-raid5", "md-lvm"), look_around),
    "lvm": (of("lvm-multi", "lvm-snapshot", "lvm-raid1"), look_around),
    "md-degraded": (one_member, look_around),
    "ldm": (of("ldm"), look_around),
    "lvm-twins": (of("lvm-twins"), look_around),
    "many-disks": (many, sizes),
}

Heard = Callable[[str, Way], list[Answer]]


@pytest.fixture(scope="module")
def heard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Heard]:
    """What a case heard on an appliance.

    All chosen cases run from the start, one machine at a time: the other core has other tests.
    """
    chosen = {
        item.callspec.params.get("name")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    with ThreadPoolExecutor(1) as pool:
        jobs = {}
        for name in (name for name in CASES if name in chosen):
            make, script = CASES[name]
            folder = tmp_path_factory.mktemp(name)
            drives = make(folder)
            for way in WAYS:
                jobs[name, way] = pool.submit(answers_of, way, drives, folder, script)
        yield lambda name, way: jobs[name, way].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", CASES)
def test_every_answer_is_the_same(name: str, heard: Heard) -> None:
    stock, instant = heard(name, "stock"), heard(name, "instant")
    assert len(stock) > 5
    for ours, theirs in zip(instant, stock, strict=False):
        assert ours[:2] == theirs[:2]
        assert comparable(ours) == comparable(theirs), ours[:2]
    assert len(instant) == len(stock)


def test_verbose_and_trace_say_the_same(tmp_path: Path) -> None:
    """The daemon's own lines and the trace of calls; times and addresses left out."""
    drives = fixture_drives("gpt")

    def said_on(way: Way) -> list[str]:
        with launched(way, drives, tmp_path, verbose=True) as (handle, said):
            del said[:]
            handle.list_filesystems()
            handle.mount_ro("/dev/sda1", "/")
            handle.ls("/")
        text = re.sub(r"0x[0-9a-f]+", "", "".join(said))
        # Its own commands differ in the appliance's root, which is vda here and the last sd there.
        return re.findall(r"guestfsd: <= \w+|list_filesystems = .*?\]", text)

    with ThreadPoolExecutor(1) as pool:
        stock, instant = pool.map(said_on, WAYS)
    assert any("guestfsd: <= mount_ro" in line for line in instant)
    assert instant == stock
