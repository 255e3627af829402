"""New ids for one of everything, and for everything that names one: in one launch, all or none."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import uuids
from imgtools.guest.linux.initramfs import Text, scan
from tests.appliance.scratch import Launches
from tests.appliance.small import digest
from tests.appliance.test_sysprep import plugin
from tests.cli import imgtools

pytestmark = pytest.mark.appliance

BOTH = ("--enable", "fs-uuids,lvm-uuids")
UNITS = "/etc/systemd/system"
INITRD = "/boot/initrd.img-6.1.0-1"


@pytest.fixture
def guest(image: Callable[[str], Path], tmp_path: Path) -> Path:
    path = tmp_path / "guest.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image("uuids")]
    subprocess.run([*words, path], check=True)
    return path


def ids(disk: Path) -> dict[str, str]:
    """What is on the disk by name and kind, each with its UUID."""
    found = json.loads(imgtools("filesystems", "--all", "--uuids", "--json", "-a", disk).stdout)
    return {f"{one['name']} {one['type']}": one["uuid"] for one in found["result"] if one["uuid"]}


def files(disk: Path) -> dict[str, bytes]:
    """Every regular file of the guest, in one run."""
    done = imgtools("tar-out", "-a", disk, "/", "-")
    assert done.code == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {one.name.lstrip("."): archive.extractfile(one) for one in archive if one.isreg()}
        found |= {one.name.lstrip("."): None for one in archive if one.issym()}
        return {name: stream.read() if stream else b"link" for name, stream in found.items()}


def luks_uuid(disk: Path) -> str:
    """Of the partition behind the others: what cryptsetup says of a copy."""
    raw = disk.with_suffix(".luks")
    offset = 2048 + (16 + 304 + 112 + 8 + 72) * 2048
    words = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=512", f"skip={offset}"]
    subprocess.run([*words, f"count={offset + 8192}", f"if={disk}", f"of={raw}"], check=True)
    header = raw.read_bytes()[:592]
    assert header.startswith(b"LUKS\xba\xbe")
    return header[168:208].rstrip(b"\0").decode()  # LUKS1's on-disk format: uuid at 168


def test_everything_has_a_new_id_and_is_called_by_it(guest: Path, tmp_path: Path) -> None:
    before, sha, launches = ids(guest), digest(guest), Launches(tmp_path)
    dry = imgtools("sysprep", "-n", "--json", "-a", guest, *BOTH, **launches.environment)
    assert (dry.code, launches.count(), digest(guest)) == (0, 0, sha), dry.stderr
    real = imgtools("sysprep", "--json", "-a", guest, *BOTH, **launches.environment)
    assert (real.code, launches.count()) == (0, 1), real.stderr
    said, done = (
        [(a["verb"], unit_without_id(a["path"]))
         for one in json.loads(run.stdout)["result"]["operations"]
         for a in one["actions"]]
        for run in (dry, real)
    )  # fmt: skip
    assert said == done
    assert ("edited", "/boot/initrd.img-6.1.0-1") in done

    after = ids(guest)
    assert after.keys() == before.keys()
    same = {name for name in before if before[name] == after[name]}
    assert same == {"/dev/ids/root lv"}
    new = {old: after[name] for name, old in before.items() if name not in same}
    root, home, data, swap = (new[old] for old in (uuids.ROOT, uuids.HOME, uuids.DATA, uuids.SWAP))
    luks, serial = luks_uuid(guest), new[uuids.SERIAL]
    assert luks != uuids.LUKS
    assert len({*new.values(), luks}) == len(new) + 1

    content = files(guest)
    assert content["/etc/fstab"].decode() == (
        f"UUID={root} / ext4 defaults 0 1\n"
        f"UUID={serial} /boot/efi vfat umask=0077 0 1\n"
        f"/dev/disk/by-uuid/{home} /home xfs defaults 0 0\n"
        f'UUID="{data.upper()}" /srv btrfs subvol=@srv 0 0\n'
        f"UUID={swap} none swap sw 0 0\n"
    )
    assert content["/etc/crypttab"].decode() == (
        f"secret UUID={luks} none luks\nluks-{luks} /dev/sda6 none\n"
    )
    cmdline = f"root=UUID={root} resume=UUID={swap}\n"
    assert content["/etc/kernel/cmdline"].decode() == cmdline
    assert content["/boot/efi/EFI/debian/grub.cfg"].decode() == f"search.fs_uuid {root} root\n"
    assert content["/boot/loader/entries/one.conf"].decode() == f"options root=UUID={root}\n"
    assert f"luks-{luks}" in content["/etc/default/grub"].decode()
    grubenv = content["/boot/grub/grubenv"].decode()
    assert (len(grubenv), f"UUID={root} ro\n" in grubenv) == (1024, True)
    vg, pv = after["/dev/ids vg"], after["/dev/sda5 pv"]
    grub = content["/boot/grub/grub.cfg"].decode()
    assert f"cryptomount -u {luks.replace('-', '')}\n" in grub
    assert vg in re.sub("-", "", grub)
    assert f"PVID={pv} " in content["/etc/lvm/devices/system.devices"].decode()
    unit = "dev-disk-by\\x2duuid-" + swap.replace("-", "\\x2d") + ".swap"
    assert f"by-uuid/{swap}" in content[f"{UNITS}/{unit}"].decode()
    assert content[f"{UNITS}/swap.target.wants/{unit}"] == b"link"
    assert content["/etc/not-an-id"].decode() == f"UUID={uuids.ROOT}\n"
    assert (content["/home/file"], content["/srv/file"]) == (b"kept\n", b"kept\n")
    for uuid, there in (swap, True), (luks, True), (uuids.SWAP, False), (uuids.LUKS, False):
        raw = uuid.encode()
        text = Text(names=lambda data, raw=raw: raw in data, replace=bytes, longest=len(raw))
        parts = scan(io.BytesIO(content[INITRD]), text)
        assert any(part.found for part in parts) is there, uuid


LVM = {"/dev/ids vg", "/dev/sda5 pv"}
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    lambda uuid: uuid.replace("-", ""),
    lambda uuid: uuid.replace("-", "\\x2d"),
)


def unit_without_id(path: str) -> str:
    """Which new id a dry run gives to the name of a unit is its own affair."""
    return re.sub(r"[0-9a-f]{8}\\x2d.*swap", "UUID", path)


def hyphened(lvm: str) -> str:
    """An id of LVM as LVM writes it."""
    return "-".join(re.fullmatch(r"(.{6})" + r"(.{4})" * 5 + r"(.{6})", lvm).groups())


def renamed(text: bytes, new: dict[str, str]) -> bytes:
    """The text with new ids for old ones, however they are spelled."""
    for old, now in new.items():
        for spelled in SPELLINGS:
            text = text.replace(spelled(old).encode(), spelled(now).encode())
    return text


@pytest.mark.parametrize("name", ["fs-uuids", "lvm-uuids"])
def test_each_alone_changes_its_ids_and_what_names_them(name: str, guest: Path) -> None:
    before, old, luks, sha = ids(guest), files(guest), luks_uuid(guest), digest(guest)
    words = ("sysprep", "--json", "-a", guest, "--enable", name)
    dry = imgtools(*words, "-n")
    assert (dry.code, digest(guest)) == (0, sha), dry.stderr
    real = imgtools(*words)
    assert real.code == 0, real.stderr
    said, done = (
        [
            (one["verb"], unit_without_id(one["path"]))
            for one in json.loads(run.stdout)["result"]["operations"][0]["actions"]
        ]
        for run in (dry, real)
    )
    assert said == done

    after, own = ids(guest), luks_uuid(guest)
    assert after.keys() == before.keys()
    changed = {one for one in before if before[one] != after[one]}
    # an LV's own id stays
    mine = LVM if name == "lvm-uuids" else before.keys() - LVM - {"/dev/ids/root lv"}
    assert (changed, own != luks) == (mine, name == "fs-uuids")
    new = {before[one]: after[one] for one in changed} | {luks: own}
    if name == "lvm-uuids":
        new |= {hyphened(before[one]): hyphened(after[one]) for one in changed}
    edited = {path for verb, path in done if verb == "edited"} - {INITRD}
    assert {
        unit_without_id(path) for path, content in old.items() if content != renamed(content, new)
    } == edited | ({"/etc/not-an-id"} if name == "fs-uuids" else set())
    wanted = {
        renamed(path.encode(), new).decode(): (
            renamed(content, new) if unit_without_id(path) in edited else content
        )
        for path, content in old.items()
    }
    found = files(guest)
    if name == "fs-uuids":  # the other test looks into it
        assert found.pop(INITRD) != wanted.pop(INITRD)
    assert found == wanted


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("yield from write(guest, '/boot/fill', bytes(90 << 20))", "operation broken: /boot/fill"),
        (
            "import imgtools.api as a; yield from a.set_uuid('/dev/sda2', 'ext4', '', 'new')",
            "operation broken: /dev/sda2: its UUID cannot be changed: ",
        ),
    ],
)
def test_a_failure_after_ids_were_changed_leaves_the_image(
    body: str, said: str, guest: Path, tmp_path: Path
) -> None:
    before = digest(guest)
    words = ("--enable", "fs-uuids,lvm-uuids,broken")
    done = imgtools("sysprep", "-a", guest, *words, **plugin(tmp_path, body))
    assert (done.code, len(done.stderr.strip().splitlines())) == (6, 1), done
    assert said in done.stderr
    assert digest(guest) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest.qcow2", "plugin"]
