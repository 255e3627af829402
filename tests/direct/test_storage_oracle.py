"""`Storage` of the direct engine against libguestfs's own lists, many disks in one launch."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtools.direct.engine import DirectEngine
from imgtools.image.chain import resolve_disk
from imgtools.model.disks import DiskRequest
from imgtools.model.storage import Storage

pytestmark = pytest.mark.appliance

FIXTURES = (
    "debian-lvm",
    "mbr-logical",
    "gpt",
    "lvm-multi",
    "md-raid1",
    "ext2",
    "ext3",
    "xfs",
    "btrfs",
    "ntfs",
    "exfat",
    "fat32",
    "squashfs",
)


class Oracle:
    """What libguestfs says of the disks, and what we say."""

    def __init__(self, storage: Storage, g: Any) -> None:
        self.storage = storage
        self.g = g

    def size(self, device: str) -> int:
        return int(self.g.blockdev_getsize64(device))


@pytest.fixture(scope="module")
def oracle(disks: Callable[[str], list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    import guestfs

    os.environ["LIBGUESTFS_BACKEND"] = "direct"
    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    images = [
        resolve_disk(DiskRequest(path=path), untrusted=False)
        for name in FIXTURES
        for path in disks(name)
    ]
    g = guestfs.GuestFS(python_return_dict=True)
    folder = tmp_path_factory.mktemp("overlays")
    for index, image in enumerate(images):
        overlay = folder / f"{index}.qcow2"
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", str(image.format)]
        subprocess.run([*command, "-b", str(image.layers[0].path), str(overlay)], check=True)
        g.add_drive_opts(str(overlay), format="qcow2")
    g.launch()
    engine = DirectEngine(images, [])
    yield Oracle(engine.storage(), g)
    engine.close()
    g.close()


def test_devices(oracle: Oracle) -> None:
    found = [(device.name, device.size) for device in oracle.storage.devices]
    assert found == [(name, oracle.size(name)) for name in oracle.g.list_devices()]


def test_partitions(oracle: Oracle) -> None:
    found = [(partition.name, partition.size) for partition in oracle.storage.partitions]
    assert found == [(name, oracle.size(name)) for name in oracle.g.list_partitions()]
    for device in sorted({partition.parent for partition in oracle.storage.partitions}):
        own = [p for p in oracle.storage.partitions if p.parent == device]
        rows = {row["part_num"]: row for row in oracle.g.part_list(device)}
        assert {p.number: p.start for p in own} == {n: row["part_start"] for n, row in rows.items()}
        tables = {p.table for p in own}
        if tables == {""}:  # mkfs.fat's, which is a partition to the kernel and nothing to blkid
            assert [p.start for p in own] == [0]
        else:
            assert tables == {oracle.g.part_get_parttype(device)}


def test_arrays(oracle: Oracle) -> None:
    assert [md.name for md in oracle.storage.mds] == oracle.g.list_md_devices()
    for md in oracle.storage.mds:
        detail = oracle.g.md_detail(md.name)
        assert (md.size, md.level, md.uuid) == (
            oracle.size(md.name),
            detail["level"],
            detail["uuid"],
        )
        assert md.set_name == detail["name"].rpartition(":")[2]


def test_lvm(oracle: Oracle) -> None:
    pvs = {(pv.name, pv.uuid, pv.size) for pv in oracle.storage.pvs}
    expected = oracle.g.pvs_full()
    canonical = oracle.g.canonical_device_name
    assert pvs == {(canonical(row["pv_name"]), row["pv_uuid"], row["pv_size"]) for row in expected}
    vgs = {(vg.name, vg.uuid, vg.size) for vg in oracle.storage.vgs}
    rows = oracle.g.vgs_full()
    assert vgs == {(row["vg_name"], row["vg_uuid"], row["vg_size"]) for row in rows}
    assert [vg.name for vg in oracle.storage.vgs] == oracle.g.vgs()
    assert [lv.name for lv in oracle.storage.lvs] == oracle.g.lvs()
    sizes = {(lv.uuid, lv.size) for lv in oracle.storage.lvs}
    assert sizes == {(row["lv_uuid"], row["lv_size"]) for row in oracle.g.lvs_full()}


def _below_default(device: str) -> str:
    """A nested subvolume by libguestfs's name.

    A deliberate difference: libguestfs names it by its path below the default subvolume, by which
    it cannot be mounted; ours begins at the top.
    """
    return device.replace("/@/data/inner", "/data/inner") if "btrfsvol" in device else device


def test_filesystems(oracle: Oracle) -> None:
    expected = oracle.g.list_filesystems()
    found = oracle.storage.filesystems
    # A disk's number may differ from the kernel's (SCSI is probed by several threads), and of the
    # two libguestfs puts the kernel's into the names of subvolumes: those come after their disk.
    rows, disk = [], ""
    for device, kind in expected.items():
        if not device.startswith("btrfsvol:"):
            disk = device
        rows.append((re.sub(r"^(btrfsvol:)/dev/sd[a-z]+", rf"\1{disk}", device), kind))
    assert [(_below_default(fs.device), fs.type) for fs in found] == rows
    for fs in found:
        if fs.type == "unknown":
            assert (fs.label, fs.uuid) == ("", "")
            continue
        assert (fs.label, fs.uuid) == (oracle.g.vfs_label(fs.device), oracle.g.vfs_uuid(fs.device))
        if not fs.device.startswith("btrfsvol:"):
            assert fs.size == oracle.size(fs.device)
