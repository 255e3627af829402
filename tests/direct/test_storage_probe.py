"""What lies on a volume: type, label and UUID exactly as blkid says."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from imgtools.direct import probe
from imgtools.direct.streams import FileStream
from imgtools.errors import DirectError

pytestmark = pytest.mark.direct

MADE = {
    "ext2": (20, "mkfs.ext2 -q -L two"),
    "ext2-spaces": (20, "mkfs.ext2 -q -L $' a b '"),
    "ext3": (40, "mkfs.ext3 -q -L three"),
    "ext4": (40, "mkfs.ext4 -q -L vier-äöü"),
    "ext4-no-journal": (40, "mkfs.ext4 -q -O ^has_journal"),
    "ext4-no-features": (40, "mkfs.ext4 -q -O none"),
    "ext4-as-ext3": (40, "mkfs.ext4 -q -O none,has_journal,ext_attr,filetype"),
    "ext4-no-checksum": (40, "mkfs.ext4 -q -O ^metadata_csum"),
    "ext4-checksum-seed": (40, "mkfs.ext4 -q -O metadata_csum_seed"),
    "ext4-no-uuid": (40, "mkfs.ext4 -q -U clear"),
    "journal-device": (40, "mke2fs -q -O journal_dev"),
    "xfs": (310, "mkfs.xfs -q -L xfslabel"),
    "xfs-v4": (310, "mkfs.xfs -q -m crc=0"),
    "btrfs": (120, "mkfs.btrfs -q -L $'b label'"),
    "btrfs-xxhash": (120, "mkfs.btrfs -q --csum xxhash"),
    "fat12": (1, "mkfs.vfat -n FLOPPY"),
    "fat16": (20, "mkfs.vfat -F16 -n $'A B'"),
    "fat16-unnamed": (20, "mkfs.vfat -F16"),
    "fat32": (100, "mkfs.vfat -F32 -n EFI"),
    "fat32-unnamed": (100, "mkfs.vfat -F32"),
    "fat-mbr": (20, "mkfs.vfat --mbr=y -n MBR"),
    "swap": (20, "mkswap -q -L swapl"),
    "swap-big-pages": (20, "mkswap -q -p 65536"),
    "ntfs": (20, "mkfs.ntfs -F -Q -q -L $'ntfs läbel'"),
    "ntfs-unnamed": (20, "mkfs.ntfs -F -Q -q"),
    "exfat": (20, "mkfs.exfat -L exf"),
    "exfat-unnamed": (20, "mkfs.exfat"),
    "f2fs": (100, "mkfs.f2fs -q -l f2-läbel"),
    "luks1": (20, "cryptsetup luksFormat -q --type luks1 --iter-time 1 -d /etc/hostname"),
    "luks2": (
        20,
        "cryptsetup luksFormat -q --type luks2 --label LB --pbkdf pbkdf2 -d /etc/hostname",
    ),
    "nothing": (10, "true"),
}


def make(path: Path, name: str) -> None:
    size, command = MADE[name]
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size << 20)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    subprocess.run(
        ["bash", "-c", f"{command} {path}"], check=True, capture_output=True, env=environment
    )


def blkid(path: Path, tag: str) -> str:
    command = ["/usr/sbin/blkid", "-c", "/dev/null", "-o", "value", "-s", tag, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize("name", MADE)
def test_as_blkid(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path, name)
    found = probe.probe(FileStream(path), name)
    expected = (blkid(path, "TYPE"), blkid(path, "LABEL"), blkid(path, "UUID"))
    assert (found.type, found.label, found.uuid) == expected
    assert not found.foreign
    assert bool(found.type) == (name != "nothing")


def test_two_signatures_are_not_for_us(tmp_path: Path) -> None:
    path = tmp_path / "both"
    make(path, "ext4")
    with path.open("r+b") as file:
        file.seek(4086)
        file.write(b"SWAPSPACE2")
        file.seek(1024)
        file.write((1).to_bytes(4, "little") + (99).to_bytes(4, "little"))
    with pytest.raises(DirectError):
        probe.probe(FileStream(path), "both")


@pytest.mark.parametrize("name", ["ext4", "xfs", "fat32", "ntfs", "exfat", "swap"])
def test_flipped_bytes_change_the_answer_or_end_in_our_errors(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path, name)
    head = path.read_bytes()[:8192]
    generator = random.Random(name)
    for _ in range(100):
        broken = bytearray(head)
        for _ in range(generator.choice([1, 8, 64])):
            broken[generator.randrange(2048)] = generator.randrange(256)
        with path.open("r+b") as file:
            file.write(broken)
        try:
            found = probe.probe(FileStream(path), name)
        except DirectError:
            continue
        assert found.type in (name, "vfat", "ext2", "ext3", "minix", "jbd", "ext4dev", "")
