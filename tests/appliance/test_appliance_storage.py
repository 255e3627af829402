"""What only some disks need of the appliance: foreign guests, several btrfs disks, clones."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgtools.appliance.engine import ApplianceEngine
from imgtools.model.disks import Disk, DiskRequest, ImageLayer

pytestmark = pytest.mark.appliance


def disk_of(path: Path) -> Disk:
    with path.open("rb") as stream:
        image_format = "qcow2" if stream.read(4) == b"QFI\xfb" else "raw"
    layer = ImageLayer(path=path, format=image_format, virtual_size=path.stat().st_size)
    return Disk(request=DiskRequest(path=path), layers=(layer,))


def ms_dos(folder: Path) -> Path:
    image = folder / "dos.raw"
    with image.open("wb") as stream:
        stream.truncate(4 << 20)
    command = folder / "COMMAND.COM"
    command.write_bytes(b"not really")
    subprocess.run(["mkfs.vfat", image], check=True, capture_output=True)
    subprocess.run(["mmd", "-i", image, "::/DOS"], check=True)
    subprocess.run(["mcopy", "-i", image, command, "::/DOS/COMMAND.COM"], check=True)
    return image


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory,
    image: Callable[[str], Path],
    disks: Callable[[str], list[Path]],
) -> Iterator[ApplianceEngine]:
    folder = tmp_path_factory.mktemp("foreign")
    clone = folder / "clone"
    shutil.copy(image("btrfs-flat"), clone)
    paths = [ms_dos(folder), *disks("btrfs-raid1"), image("btrfs-flat"), clone]
    engine = ApplianceEngine([disk_of(path) for path in paths])
    yield engine
    engine.close()


def test_a_guest_that_is_not_linux(engine: ApplianceEngine) -> None:
    found = [guest for guest in engine.inspect_foreign() if guest.type == "dos"]
    assert engine.notices == []
    assert [(guest.root, guest.distro) for guest in found] == [("/dev/sda", "msdos")]
    assert found[0].mountpoints == (("/", "/dev/sda"),)
    assert found[0].applications == ()


def test_a_btrfs_of_two_disks_is_whole(engine: ApplianceEngine) -> None:
    first = next(f for f in engine.storage().filesystems if f.device == "/dev/sdb")
    assert first.type == "btrfs"
    assert engine.mount("/dev/sdb").scandir(b"/") != []


def test_two_clones_of_one_btrfs_are_both_read(engine: ApplianceEngine) -> None:
    originals = {f.device: f.uuid for f in engine.storage().filesystems if f.type == "btrfs"}
    assert originals["/dev/sdd"] == originals["/dev/sde"]
    second, first = engine.mount("/dev/sde"), engine.mount("/dev/sdd")
    assert {e.name for e in second.scandir(b"/")} == {e.name for e in first.scandir(b"/")}
    sources = engine.appliance.shell("grep -c ' /sysroot/imgtools[0-9]* btrfs ' /proc/mounts")
    assert int(sources) >= 2
    devices = engine.appliance.shell(
        "while read -r source target rest; do\n"
        "case $target in /sysroot/imgtools*) echo $source;; esac; done </proc/mounts"
    )
    assert len(devices.split()) == len(set(devices.split())), "one device mounted for both"
