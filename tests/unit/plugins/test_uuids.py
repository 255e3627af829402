"""New ids in every file that names old ones, and what cannot be rewritten."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest

from imgtools.api import Guest
from imgtools.errors import GuestOperationError
from imgtools.guest.steps import Link, Move, RenewLvm, Rewrite, SetUuid
from imgtools.guest.tree import GuestTree
from imgtools.model.storage import (
    Filesystem,
    LuksVolume,
    Partition,
    PhysicalVolume,
    Storage,
    VolumeGroup,
)
from imgtools_ops._ids import Ids, dashed
from imgtools_ops._references import references
from tests.unit.plugins.guests import BY_NAME, after, make_tree, plan

pytestmark = pytest.mark.unit

OLD, NEW = "f3c8b47a-df68-5de9-8a6f-a2815d857b81", "01234567-89ab-4def-8123-456789abcdef"
FAT, SERIAL = "DEB1-2E51", "A0B1-C2D3"
PV, VG = "N7T4iqPRk0kCFGvM9JcaHf4zYKoduqiB", "tt6SjNLBObAzNV1xc2cU7R27DVN5CdbP"
NEW_PV, NEW_VG = PV[::-1], VG[::-1]


def ids() -> Ids:
    made = Ids()
    made.update({OLD: NEW, FAT.lower(): SERIAL.lower()})
    return made


def escaped(uuid: str) -> str:
    return uuid.replace("-", "\\x2d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"UUID={OLD} /", f"UUID={NEW} /"),
        (f'UUID="{OLD.upper()}" /', f'UUID="{NEW.upper()}" /'),
        (f"luks-{OLD} UUID={OLD}", f"luks-{NEW} UUID={NEW}"),
        (f"cryptomount -u {OLD.replace('-', '')}", f"cryptomount -u {NEW.replace('-', '')}"),
        (f"dev-disk-by\\x2duuid-{escaped(OLD)}.swap", f"dev-disk-by\\x2duuid-{escaped(NEW)}.swap"),
        (f"UUID={FAT} /boot/efi", f"UUID={SERIAL} /boot/efi"),
        (f"uuid={FAT.lower()}", f"uuid={SERIAL.lower()}"),
        (f"by\\x2duuid-{escaped(FAT)}.mount", f"by\\x2duuid-{escaped(SERIAL)}.mount"),
        # others that only look so
        (f"0{OLD}", f"0{OLD}"),
        (f"{OLD}a", f"{OLD}a"),
        ("UUID=00000000-deb1-2e51-8a6f-a2815d857b81", "UUID=00000000-deb1-2e51-8a6f-a2815d857b81"),
        ("DEB12E51", "DEB12E51"),
        ("", ""),
    ],
)
def test_every_way_to_write_a_uuid(text: str, expected: str) -> None:
    assert ids().replace(text.encode()) == expected.encode()
    assert ids().names(text.encode()) is (text != expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"lvmid/{dashed(VG)}/{dashed('x' * 32)}", f"lvmid/{dashed(NEW_VG)}/{dashed('x' * 32)}"),
        (f"PVID={PV} PART=3", f"PVID={NEW_PV} PART=3"),
        (f"dm-uuid-LVM-{VG}{PV}", f"dm-uuid-LVM-{NEW_VG}{NEW_PV}"),
        (f"lvm-pv-uuid-{dashed(PV)}", f"lvm-pv-uuid-{dashed(NEW_PV)}"),
        (PV.upper(), PV.upper()),  # the two cases are different letters here
    ],
)
def test_every_way_to_write_an_id_of_lvm(text: str, expected: str) -> None:
    made = Ids(lvm=True)
    made.update({PV: "x" * 32, VG: "y" * 32})
    assert made.names(text.encode()) is (text != expected)
    made.update({PV: NEW_PV, VG: NEW_VG})  # as LVM chose them
    assert made.replace(text.encode()) == expected.encode()


# --- what is planned -----------------------------------------------------------------------------

STORAGE = Storage(
    filesystems=(
        Filesystem(device="/dev/sda1", type="ext4", uuid=OLD),
        Filesystem(device="/dev/sda2", type="swap", uuid=OLD.replace("f", "e")),
        Filesystem(device="/dev/sda3", type="btrfs", uuid=OLD.replace("f", "d")),
        Filesystem(device="/dev/sdb3", type="btrfs", uuid=OLD.replace("f", "d")),
        Filesystem(device="btrfsvol:/dev/sda3/home", type="btrfs", uuid=OLD.replace("f", "d")),
        Filesystem(device="/dev/sda4", type="ntfs", uuid="1234567890ABCDEF"),
        Filesystem(device="/dev/sda5", type="vfat", uuid=FAT),
        Filesystem(device="/dev/sda6", type="unknown"),
        Filesystem(device="/dev/vg/snap", type="ext4", uuid=OLD),
    ),
    luks=(LuksVolume(device="/dev/sda7", uuid=OLD.replace("f", "c"), version=2),),
)


def guest(files: Mapping[str, Any], storage: Storage = STORAGE) -> GuestTree:
    tree = make_tree(files)
    tree.storage = lambda: storage
    return tree


def steps(name: str, tree: GuestTree) -> tuple[list[Any], list[str]]:
    looked = Guest(tree)
    return [action.step for action in BY_NAME[name].plan(looked, {})], looked.warnings


def test_each_thing_gets_a_uuid_of_its_own_and_a_snapshot_that_of_its_origin() -> None:
    found, warnings = steps("fs-uuids", guest({}))
    assert [(one.device, one.kind) for one in found if isinstance(one, SetUuid)] == [
        ("/dev/sda7", "crypto_LUKS"), ("/dev/sda1", "ext4"), ("/dev/sda2", "swap"),
        ("/dev/sda3", "btrfs"), ("/dev/sda5", "vfat"), ("/dev/vg/snap", "ext4"),
    ]  # fmt: skip
    new = {one.device: one.new for one in found}
    assert new["/dev/sda1"] == new["/dev/vg/snap"]
    assert len(set(new.values())) == len(new) - 1
    assert not set(new.values()) & {one.old for one in found}
    assert [one.partition(":")[0] for one in warnings] == ["/dev/sda3", "/dev/sda4"]


def test_a_plan_says_what_gets_which_and_what_is_edited() -> None:
    files = {"etc/fstab": f"UUID={OLD} / ext4\n".encode(), "etc/crypttab": b"x /dev/sda7 none\n"}
    assert plan("fs-uuids", guest(files))[-2:] == ["changed /dev/vg/snap", "edited /etc/fstab"]
    assert plan("fs-uuids", guest(files, Storage())) == []
    assert plan("lvm-uuids", guest(files, Storage())) == []


def test_lvm_tells_its_ids_before_files_are_rewritten() -> None:
    storage = Storage(
        pvs=(PhysicalVolume(name="/dev/sda3", size=1, uuid=PV, vg="vg"),),
        vgs=(VolumeGroup(name="vg", size=1, uuid=VG, parents=("/dev/sda3",)),),
    )
    text = f"IDTYPE=devname DEVNAME=/dev/sda3 PVID={PV} PART=3\n".encode()
    tree = guest({"etc/lvm/devices/system.devices": text}, storage)
    renew, rewrite = steps("lvm-uuids", tree)[0]
    assert isinstance(renew, RenewLvm)
    assert isinstance(rewrite, Rewrite)
    renew.tell({PV: NEW_PV, VG: NEW_VG})
    assert rewrite.transform(text) == text.replace(PV.encode(), NEW_PV.encode())
    assert rewrite.path == b"/etc/lvm/devices/system.devices"


def test_units_are_renamed_with_what_leads_to_them() -> None:
    unit = f"dev-disk-by\\x2duuid-{escaped(OLD)}.swap"
    folder = "etc/systemd/system"
    tree = make_tree({
        f"{folder}/{unit}": f"[Swap]\nWhat=/dev/disk/by-uuid/{OLD}\n".encode(),
        f"{folder}/swap.target.wants/{unit}": f"../{unit}",
        f"{folder}/{unit}.d/more.conf": b"[Swap]\n",
        f"{folder}/alias.swap": unit,
    })  # fmt: skip
    new = unit.replace(escaped(OLD), escaped(NEW)).encode()
    found = [(one.verb, one.path, one.step) for one in references(Guest(tree), ids())]
    at = b"/etc/systemd/system/"
    assert [(verb, path) for verb, path, _ in found] == [
        ("removed", at + b"swap.target.wants/" + unit.encode()),
        ("made", at + b"swap.target.wants/" + new),
        ("made", at + b"alias.swap"),
        ("edited", at + unit.encode()),
        ("moved", at + unit.encode()),
        ("moved", at + unit.encode() + b".d"),
    ]
    links = [step.target for _, _, step in found if isinstance(step, Link)]
    assert links == [b"../" + new, new]
    moves = [step.to for _, _, step in found if isinstance(step, Move)]
    assert moves == [at + new, at + new + b".d"]


def test_a_file_that_two_names_lead_to_is_edited_once() -> None:
    tree = make_tree({
        "boot/grub2/grubenv": "../efi/EFI/fedora/grubenv",
        "boot/efi/EFI/fedora/grubenv": f"kernelopts=root=UUID={OLD}\n".encode(),
    })  # fmt: skip
    assert [one.path for one in references(Guest(tree), ids())] == [b"/boot/efi/EFI/fedora/grubenv"]


# --- boot loaders --------------------------------------------------------------------------------


def program(*, signed: bool) -> bytes:
    """A PE32+ file with a command line in it."""
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + bytes(20)
    optional = struct.pack("<H", 0x20B).ljust(112 + 4 * 8, b"\0")
    table = struct.pack("<II", 4096, 64 if signed else 0)
    return header + optional + table + f"search.fs_uuid {OLD} root".encode()


def test_a_core_for_uefi_is_rewritten_unless_it_is_signed() -> None:
    path = "boot/efi/EFI/debian/grubx64.efi"
    tree = make_tree({path: program(signed=False)})
    [action] = references(Guest(tree), ids())
    assert isinstance(action.step, Rewrite)
    assert action.step.transform(program(signed=False)).endswith(f"{NEW} root".encode())
    tree = make_tree({path: program(signed=True)})
    with pytest.raises(GuestOperationError, match=r"grubx64\.efi: names an old id .* signs it"):
        list(references(Guest(tree), ids()))


@pytest.mark.parametrize(
    "files",
    [
        {"boot/efi/EFI/Linux/big.efi": bytes((17 << 20) - 20) + OLD.encode()},
        {"boot/grub/powerpc-ieee1275/core.elf": b"\x7fELF\0" + OLD.encode()},
        {"etc/zipl.conf": f"parameters=root=UUID={OLD}".encode()},
    ],
)
def test_what_cannot_be_rewritten_is_refused(files: Mapping[str, Any]) -> None:
    with pytest.raises(GuestOperationError, match="names an old id where only"):
        list(references(Guest(make_tree(files)), ids()))


def test_an_esp_that_the_guest_does_not_mount_is_refused() -> None:
    esp = Partition(
        name="/dev/sda5", size=1, parent="/dev/sda", number=5, table="gpt",
        gpt_type="C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    )  # fmt: skip
    tree = guest({}, Storage(partitions=(esp,), filesystems=STORAGE.filesystems))
    with pytest.raises(GuestOperationError, match="/dev/sda5 is an EFI system partition"):
        plan("fs-uuids", tree)


def test_an_unreadable_core_is_a_warning() -> None:
    looked = Guest(make_tree({"boot/grub/i386-pc/core.img": b"x" * 40000}))
    assert list(references(looked, ids())) == []
    assert "cannot be seen" in looked.warnings[0]


def test_text_is_rewritten_in_place() -> None:
    text = b"x UUID=" + OLD.encode() + b"\n\xff\0"
    tree = guest({"etc/fstab": text})
    edited = after("fs-uuids", tree, "/etc/fstab")
    assert OLD.encode() not in edited
    assert (edited[:7], edited[-3:], len(edited)) == (text[:7], text[-3:], len(text))
