"""RAID, LVM and LUKS made by the kernel in one appliance, then read here byte for byte."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtools.direct import md
from imgtools.direct.engine import DirectEngine
from imgtools.direct.partitions import read_table
from imgtools.direct.scan import scan
from imgtools.direct.streams import FileStream, Window
from imgtools.errors import DirectUnsupportedError, UncleanError
from imgtools.model.disks import Disk, DiskRequest, ImageLayer, KeySpec

pytestmark = pytest.mark.appliance

MIB = 1 << 20
MEMBERS = 4
ARRAYS = {  # name: members, options of mdadm
    "raid1": (2, "--level=1 --metadata=1.2"),
    "raid0": (3, "--level=0 --chunk=64"),
    "raid5": (4, "--level=5 --chunk=64"),
    "raid6": (4, "--level=6 --chunk=64"),
    "raid10": (4, "--level=10 --chunk=64"),
    "linear": (3, "--level=linear"),
    "old": (2, "--level=1 --metadata=0.90"),
    "end": (2, "--level=1 --metadata=1.0"),
    "far": (4, "--level=10 --layout=f2 --chunk=64"),
    "raid4": (4, "--level=4 --chunk=64"),
    "start": (4, "--level=5 --layout=ra --chunk=64 --metadata=1.1"),
    "offset": (4, "--level=10 --layout=o2 --chunk=64"),
    "three": (4, "--level=10 --layout=n3 --chunk=64"),
}
CIPHERS = {
    "luks1": "--type luks1 --iter-time 20",
    "argon2id": "--type luks2 --pbkdf argon2id --pbkdf-memory 32768 --pbkdf-force-iterations 4",
    "argon2i": "--type luks2 --pbkdf argon2i --pbkdf-memory 32768 --pbkdf-force-iterations 4",
    "sectors": "--type luks2 --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 2000",
    "essiv": "--type luks1 -c aes-cbc-essiv:sha256 -s 256 --iter-time 20",
    "serpent": "--type luks1 -c serpent-xts-plain64 --iter-time 20",
}
KEY = b"open sesame"


class Built:
    """The folder with the disks and what was written to each volume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def disk(self, name: str) -> Disk:
        path = self.folder / f"{name}.raw"
        layer = ImageLayer(path=path, format="raw", virtual_size=path.stat().st_size)
        return Disk(request=DiskRequest(path=path), layers=(layer,))

    def content(self, name: str) -> bytes:
        return (self.folder / f"{name}.content").read_bytes()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    import guestfs

    os.environ["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    os.environ["LIBGUESTFS_BACKEND"] = "direct"
    result = Built(tmp_path_factory.mktemp("volumes"))
    g = guestfs.GuestFS(python_return_dict=True)
    names = [f"md{index}" for index in range(MEMBERS)] + ["pv0", "pv1", "luks"]
    device = {}
    for index, name in enumerate(names):
        path = result.folder / f"{name}.raw"
        with path.open("wb") as file:
            file.truncate(400 * MIB)
        g.add_drive_opts(str(path), format="raw")
        device[name] = f"/dev/sd{chr(97 + index)}"
    g.set_memsize(1024)
    g.launch()
    fill = _filler(g, result)
    _make_arrays(g, device, fill)
    _make_lvm(g, device, fill)
    _make_luks(g, device, fill)
    g.shutdown()
    g.close()
    return result


def _filler(g: Any, result: Built) -> Callable[[str, str], None]:
    generator = random.Random(3)

    def fill(device: str, name: str) -> None:
        path = result.folder / f"{name}.content"
        path.write_bytes(generator.randbytes(g.blockdev_getsize64(device)))
        g.upload(str(path), device)

    return fill


def _shell(g: Any, *lines: str) -> str:
    return str(g.debug("sh", ["set -e; " + "; ".join(f"{line} 2>&1" for line in lines)]))


def _make_arrays(g: Any, device: dict[str, str], fill: Callable[[str, str], None]) -> None:
    starts = range(2048, 2048 + 49152 * len(ARRAYS), 49152)
    for member in range(MEMBERS):
        # The second disk's share of the RAID 0 is larger, so that the array has two zones.
        sizes = [47104 if (member, name) == (1, "raid0") else 32768 for name in ARRAYS]
        rows = [f"start={start},size={size}" for start, size in zip(starts, sizes, strict=True)]
        table = "label: gpt\\n" + "\\n".join(rows) + "\\n"
        _shell(g, f"printf '{table}' | sfdisk -q {device[f'md{member}']}", "udevadm settle")
    for number, (name, (count, options)) in enumerate(ARRAYS.items(), 1):
        members = " ".join(f"{device[f'md{index}']}{number}" for index in range(count))
        create = f"mdadm --create /dev/md{number} --run --assume-clean --name={name} -n {count}"
        _shell(g, f"{create} {options} {members}")
        fill(f"/dev/md{number}", name)
    _shell(g, "sync", *[f"mdadm --stop /dev/md{n}" for n in range(1, len(ARRAYS) + 1)])


def _make_lvm(g: Any, device: dict[str, str], fill: Callable[[str, str], None]) -> None:
    first, second = device["pv0"], device["pv1"]
    create = "lvm lvcreate -y -Zn -Wn"
    _shell(
        g,
        f"lvm vgcreate group {first} {second}",
        f"{create} -i 2 -I 64 -L 40M -n striped group",
        f"{create} -L 20M -n split group",
        f"{create} -L 8M -n between group",
        "lvm lvextend -L +24M group/split",
        f"{create} -l 10 -n wide group {first}",
        f"lvm lvextend -l +5 group/wide {second}",
        f"{create} -L 4M -k y -n skipped group",
    )
    for name in ("striped", "split", "wide"):
        fill(f"/dev/group/{name}", name)


def _make_luks(g: Any, device: dict[str, str], fill: Callable[[str, str], None]) -> None:
    disk = device["luks"]
    rows = "\\n".join([",60M"] * len(CIPHERS))
    _shell(g, f"printf 'label: gpt\\n{rows}\\n' | sfdisk -q {disk}", "udevadm settle")
    key = "/tmp/luks-key"
    g.debug("sh", [f"printf '{KEY.decode()}' > {key}"])
    for number, (name, options) in enumerate(CIPHERS.items(), 1):
        _shell(g, f"cryptsetup luksFormat -q {options} {disk}{number} {key}")
        if name != "serpent":
            _shell(g, f"cryptsetup open --key-file {key} {disk}{number} {name}")
            fill(f"/dev/mapper/{name}", name)
            _shell(g, f"cryptsetup close {name}")


# --- RAID ---------------------------------------------------------------------------------------


def members(built: Built, name: str) -> list[md.Member]:
    number = list(ARRAYS).index(name) + 1
    found = []
    for index in range(ARRAYS[name][0]):
        stream = FileStream(built.folder / f"md{index}.raw")
        table = read_table(stream, 512, "disk")
        assert table is not None
        entry = next(entry for entry in table.entries if entry.number == number)
        window = Window(stream, entry.start, entry.size)
        found.append(md.read_member(window, f"md{index}p{number}"))
    return found


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_reads_as_the_kernel_wrote_it(name: str, built: Built) -> None:
    (array,) = md.assemble(members(built, name))
    assert not array.degraded
    assert array.stream.read_at(0, array.stream.size) == built.content(name)


REDUNDANT = [name for name in ARRAYS if name not in ("raid0", "linear")]


@pytest.mark.parametrize("name", REDUNDANT)
def test_without_any_one_disk_it_reads_the_same(name: str, built: Built) -> None:
    whole = members(built, name)
    for present in itertools.combinations(whole, len(whole) - 1):
        (array,) = md.assemble(present)
        assert array.degraded
        assert array.stream.read_at(0, array.stream.size) == built.content(name)


@pytest.mark.parametrize("name", ["raid0", "linear"])
def test_without_redundancy_a_missing_disk_is_not_for_us(name: str, built: Built) -> None:
    with pytest.raises(DirectUnsupportedError):
        md.assemble(members(built, name)[1:])


def test_several_arrays_have_no_certain_names(built: Built) -> None:
    disks = [built.disk(f"md{index}") for index in range(MEMBERS)]
    with pytest.raises(DirectUnsupportedError, match="names"):
        scan(disks, [])


def test_members_that_disagree_are_not_for_us(built: Built) -> None:
    first, second = members(built, "raid1")
    older = md.Superblock(
        **{
            field: getattr(second.superblock, field)
            for field in md.Superblock.__slots__
            if field != "events"
        },
        events=second.superblock.events - 2,
    )
    stale = md.Member(device=second.device, stream=second.stream, superblock=older)
    with pytest.raises(UncleanError):
        md.assemble([first, stale])


# --- LVM ----------------------------------------------------------------------------------------


def test_logical_volumes_read_as_the_kernel_wrote_them(built: Built) -> None:
    found = scan([built.disk("pv0"), built.disk("pv1")], [])
    assert [node.name for node in found.of_kind("lv")] == [
        f"/dev/group/{name}" for name in ("between", "split", "striped", "wide")
    ]
    for name in ("split", "striped", "wide"):
        stream = found.nodes[f"/dev/group/{name}"].stream
        assert stream.read_at(0, stream.size) == built.content(name)
    assert found.nodes["/dev/group/striped"].disks == {0, 1}


def test_a_group_that_lacks_a_disk_is_not_for_us(built: Built) -> None:
    with pytest.raises(DirectUnsupportedError, match="missing"):
        scan([built.disk("pv1")], [])


# --- LUKS ---------------------------------------------------------------------------------------

READABLE = [name for name in CIPHERS if name != "serpent"]


def test_locked_volumes_are_listed_with_a_warning(built: Built) -> None:
    engine = DirectEngine([built.disk("luks")], [])
    storage = engine.storage()
    assert [volume.mapped for volume in storage.luks] == [None] * len(CIPHERS)
    assert [volume.version for volume in storage.luks] == [1, 2, 2, 2, 1, 1]
    assert {warning.code for warning in storage.warnings} == {"image.encrypted"}
    assert storage.filesystems == ()


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("by", ["device", "uuid"])
def test_a_key_opens_its_volume(name: str, by: str, built: Built) -> None:
    number = list(CIPHERS).index(name) + 1
    listed = DirectEngine([built.disk("luks")], []).storage().luks
    identity = listed[number - 1].uuid if by == "uuid" else f"/dev/sda{number}"
    wrong = KeySpec(id=identity, secret=b"wrong")
    found = scan([built.disk("luks")], [wrong, KeySpec(id=identity, secret=KEY)])
    assert [volume.mapped for volume in found.luks if volume.mapped] == [
        f"/dev/mapper/cryptsda{number}"
    ]
    stream = found.nodes[f"/dev/mapper/cryptsda{number}"].stream
    expected = built.content(name)
    assert stream.size == len(expected)
    assert stream.read_at(0, 8 * MIB) == expected[: 8 * MIB]
    assert stream.read_at(stream.size - 4096, 5000) == expected[-4096:]


def test_a_cipher_without_a_library_is_not_for_us(built: Built) -> None:
    with pytest.raises(DirectUnsupportedError, match="serpent"):
        scan([built.disk("luks")], [KeySpec(id="/dev/sda6", secret=KEY)])
