"""Partition tables as the distribution's own tools write and list them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from imgtools.direct.partitions import Table, read_table
from imgtools.direct.streams import FileStream
from imgtools.errors import DamagedError

pytestmark = pytest.mark.direct

MBR = """label: dos
start=2048, size=20000, type=83, bootable
start=24000, size=300000, type=5
start=330000, size=1281, type=c
start=26048, size=5000, type=83
start=34048, size=6000, type=82
start=44048, size=7000, type=8e
start=200000, size=100001, type=fd
"""
GPT = """label: gpt
start=2048, size=20000, type=uefi, name="EFI System"
start=24000, size=4096, type=21686148-6449-6E6F-744E-656564454649, name="bios"
start=40960, size=100001, type=linux, name="rööt", attrs="LegacyBIOSBootable"
7: start=200000, size=2048, type=lvm
"""


def made(tmp_path: Path, script: str, size: int = 200 << 20) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["sfdisk", "-q", str(path)], input=script, text=True, check=True)
    return path


def listed(path: Path) -> list[tuple[int, int, int]]:
    """(number, start, size) in bytes, by sfdisk."""
    done = subprocess.run(["sfdisk", "-J", str(path)], capture_output=True, check=True)
    found = json.loads(done.stdout)["partitiontable"]["partitions"]
    return [
        (int(p["node"].removeprefix(str(path)).lstrip("p")), p["start"] * 512, p["size"] * 512)
        for p in found
    ]


def table_of(path: Path) -> Table:
    table = read_table(FileStream(path), 512, "/dev/sda")
    assert table is not None
    return table


def test_mbr_with_logical_partitions(tmp_path: Path) -> None:
    path = made(tmp_path, MBR)
    table = table_of(path)
    assert table.kind == "msdos"
    expected = [row if row[0] != 2 else (2, row[1], 1024) for row in listed(path)]
    assert sorted((e.number, e.start, e.size) for e in table.entries) == sorted(expected)
    assert [e.mbr_id for e in table.entries] == [0x83, 5, 0x0C, 0x83, 0x82, 0x8E, 0xFD]
    assert [e.bootable for e in table.entries] == [True] + [False] * 6
    assert [e.number for e in table.entries if e.extended] == [2]


def test_gpt(tmp_path: Path) -> None:
    path = made(tmp_path, GPT)
    table = table_of(path)
    assert table.kind == "gpt"
    assert [(e.number, e.start, e.size) for e in table.entries] == listed(path)
    assert [e.label for e in table.entries] == ["EFI System", "bios", "rööt", ""]
    assert [e.bootable for e in table.entries] == [False, False, True, False]
    assert table.entries[3].gpt_type == "E6D6D379-F507-44C2-A23C-238F2A3DF928"


def test_a_disk_grown_without_moving_the_alternate_gpt(tmp_path: Path) -> None:
    path = made(tmp_path, GPT)
    with path.open("r+b") as file:
        file.truncate(300 << 20)
    assert len(table_of(path).entries) == 4


def test_a_disk_cut_off_is_damage(tmp_path: Path) -> None:
    path = made(tmp_path, GPT)
    with path.open("r+b") as file:
        file.truncate(150 << 20)
    with pytest.raises(DamagedError):
        read_table(FileStream(path), 512, "/dev/sda")


@pytest.mark.parametrize(
    "command",
    ["mkfs.vfat -F32", "mkfs.vfat -F16", "mkfs.ntfs -F -Q -q", "mkfs.ext4 -q", "mkfs.exfat"],
)
def test_a_filesystem_on_the_whole_disk_is_no_table(command: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    subprocess.run([*command.split(), str(path)], check=True, capture_output=True)
    assert read_table(FileStream(path), 512, "/dev/sda") is None


def test_the_bogus_table_of_mkfs_fat_is_what_the_kernel_sees(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(20 << 20)
    subprocess.run(["mkfs.vfat", "--mbr=y", str(path)], check=True, capture_output=True)
    assert [(e.number, e.start, e.size) for e in table_of(path).entries] == [(1, 0, 20 << 20)]
