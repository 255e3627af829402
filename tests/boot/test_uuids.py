"""A guest whose every id is new comes up: real Debian on LVM, booted by UEFI."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.cpio import archive
from tests.boot.test_boot import boot, overlay
from tests.cli import imgtools

pytestmark = [pytest.mark.boot, pytest.mark.appliance, pytest.mark.timeout(900)]

FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")
MODULES = "ext2 fat part_gpt search search_fs_uuid configfile normal"

UNIT = """\
[Unit]
After=local-fs.target swap.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'echo "cmdline $(cat /proc/cmdline)"'
ExecStart=/bin/findmnt -rn -o TARGET,UUID
ExecStart=/bin/sh -c 'echo "swap $(/sbin/swapon --show=UUID --noheadings)"'
ExecStart=/sbin/pvs --noheadings -o vg_uuid,pv_uuid
ExecStart=/bin/sh -c 'dmesg | grep initramfs.knows'
ExecStart=/bin/systemctl --no-block poweroff
"""


def uuids(disk: Path) -> dict[str, str]:
    """What is on the disk by name, each with its UUID; LVM's ids without hyphens."""
    words = ("filesystems", "--all", "--uuids", "--json", "-a", disk)
    found = json.loads(imgtools(*words).stdout)["result"]
    kinds = ("filesystem", "vg", "pv")
    return {f"{one['name']} {one['type']}": one["uuid"] for one in found if one["type"] in kinds}


def initramfs_that_names(uuid: str) -> bytes:
    """A compressed archive to be put behind another: a setting that initramfs-tools runs."""
    setting = f'echo "initramfs knows UUID={uuid}" > /dev/kmsg\n'.encode()
    return bytes(512) + gzip.compress(archive({"conf/conf.d/names": setting}))


def make_core(disk: Path, folder: Path, uuid: str) -> Path:
    """GRUB for UEFI that finds /boot by its UUID, as grub-install makes it for another disk."""
    assert imgtools("copy-out", "-a", disk, "/usr/lib/grub/x86_64-efi", folder).code == 0
    (folder / "load.cfg").write_text(f"search.fs_uuid {uuid} root\nset prefix=($root)/grub\n")
    words = ["grub-mkimage", "-O", "x86_64-efi", "-d", folder / "x86_64-efi", "-p", "/nowhere"]
    words += ["-c", folder / "load.cfg", "-o", folder / "core.efi", *MODULES.split()]
    subprocess.run(words, check=True)
    return folder / "core.efi"


def test_a_guest_with_new_ids_boots(image: Callable[[str], Path], tmp_path: Path) -> None:
    disk = overlay(image("debian-lvm"), tmp_path / "guest.qcow2")
    old = uuids(disk)
    root, home = old["/dev/debian-vg/root filesystem"], old["/dev/debian-vg/home filesystem"]
    swap, boots = old["/dev/debian-vg/swap filesystem"], old["/dev/sda2 filesystem"]
    (initrd,) = [
        line.rpartition("/")[2]
        for line in imgtools("ls", "-a", disk, "/boot").lines
        if "initrd.img-" in line
    ]
    kept = tmp_path / "initrd"
    kept.write_bytes(
        imgtools("cat", "-a", disk, f"/boot/{initrd}").stdout + initramfs_that_names(swap)
    )
    core = make_core(disk, tmp_path, boots)
    (tmp_path / "unit").write_text(UNIT)
    wants = "/etc/systemd/system/multi-user.target.wants"
    steps = tmp_path / "steps"
    steps.write_text(f"""\
write /etc/systemd/system/proof.service --from {tmp_path}/unit
mkdir -p {wants}
ln -s ../proof.service {wants}/proof.service
edit /etc/fstab -e 's,/dev/mapper/debian--vg-root,UUID={root},'
edit /etc/fstab -e 's,/dev/mapper/debian--vg-home,/dev/disk/by-uuid/{home},'
edit /etc/fstab -e 's,LABEL=swap,UUID={swap},'
edit /boot/grub/grub.cfg -e 's,root=/dev/mapper/debian--vg-root,root=UUID={root},'
write /boot/efi/EFI/BOOT/BOOTX64.EFI --from {core}
write /boot/{initrd} --from {kept}
""")
    assert imgtools("apply", "-a", disk, steps).code == 0
    done = imgtools("sysprep", "-a", disk, "--enable", "fs-uuids,lvm-uuids", "--json")
    assert done.code == 0, done.stderr
    actions = [
        f"{action['verb']} {action['path']}"
        for one in json.loads(done.stdout)["result"]["operations"]
        for action in one["actions"]
    ]
    assert {
        "edited /etc/fstab", "edited /boot/grub/grub.cfg", f"edited /boot/{initrd}",
        "edited /boot/efi/EFI/BOOT/BOOTX64.EFI",
    } <= set(actions)  # fmt: skip
    new = uuids(disk)
    assert old.keys() == new.keys()
    assert not set(old.values()) & set(new.values())

    (said,) = boot(disk, more=["-bios", str(FIRMWARE)])
    text = said.decode(errors="replace").replace("\r", "")
    lines = text.splitlines()
    ids = {name: uuid.lower() for name, uuid in new.items()}
    assert f"root=UUID={ids['/dev/debian-vg/root filesystem']}" in text
    assert f"/ {ids['/dev/debian-vg/root filesystem']}" in lines
    assert f"/home {ids['/dev/debian-vg/home filesystem']}" in lines
    assert f"/boot {ids['/dev/sda2 filesystem']}" in lines
    assert f"/boot/efi {new['/dev/sda1 filesystem']}" in lines
    assert f"swap {ids['/dev/debian-vg/swap filesystem']}" in lines
    bare = re.sub(r"(?<=\w)-(?=\w)", "", text)
    assert new["/dev/debian-vg vg"] in bare
    assert new["/dev/sda3 pv"] in bare
    assert f"initramfs knows UUID={ids['/dev/debian-vg/swap filesystem']}" in text
    assert not [uuid for uuid in old.values() if uuid and uuid in text + bare]
