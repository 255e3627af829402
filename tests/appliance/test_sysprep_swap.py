"""sysprep's swap-contents: what was swapped out is gone from the image, the swap space is not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.appliance.small import digest
from tests.cli import imgtools

pytestmark = pytest.mark.appliance
SECRET = b"a key that was in memory "
UUID = "0f3a2a39-5d0c-4a4e-9a0e-6d3a52b3a101"
MIB = 1 << 20


def make_swap(path: Path, size: int) -> bytes:
    """A swap space that was used; its header."""
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    subprocess.run(["mkswap", "-q", "-U", UUID, "-L", "pages", path], check=True)
    with path.open("r+b") as stream:
        for place in (4096, size // 2 + 17, size - len(SECRET)):
            stream.seek(place)
            stream.write(SECRET)
        stream.seek(0)
        return stream.read(4096)


def test_swap_of_a_disk_and_a_file_is_cleared_once(tmp_path: Path) -> None:
    root, disk, swap = tmp_path / "root", tmp_path / "disk.img", tmp_path / "swap.img"
    fstab = f"UUID={UUID} none swap sw 0 0\n/swap\\040file none swap sw 0 0\n/no none swap sw 0 0\n"
    for path, text in {"bin/true": "", "etc/fstab": fstab, "etc/os-release": "ID=debian\n"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    header = make_swap(root / "swap file", 9 * MIB)
    subprocess.run(["truncate", "-s", "32M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-d", root, disk], check=True)
    device = make_swap(swap, 20 * MIB)
    assert SECRET in disk.read_bytes()
    guest = ("--format", "raw", "-a", disk, "-a", swap, "--enable", "swap-contents", "--json")

    before = digest(disk), digest(swap)
    dry = imgtools("sysprep", "-n", *guest)
    assert (dry.code, digest(disk), digest(swap)) == (0, *before), dry
    real = imgtools("sysprep", *guest)
    assert real.code == 0, real
    [listed, done] = [json.loads(one.text)["result"]["operations"] for one in (dry, real)]
    assert listed == done
    changed = [(action["verb"], action["path"]) for action in done[0]["actions"]]
    assert changed == [("changed", "/dev/sdb"), ("changed", "/swap file")]

    assert SECRET not in disk.read_bytes()
    assert swap.read_bytes() == device + bytes(20 * MIB - 4096)
    file = imgtools("cat", "--format", "raw", "-a", disk, "-a", swap, "/swap file").stdout
    assert file == header + bytes(9 * MIB - 4096)
    words = ["blkid", "-p", "-o", "value", "-s", "UUID", "-s", "LABEL", swap]
    probed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert sorted(probed.split()) == sorted((UUID, "pages"))
    again = imgtools("sysprep", *guest)
    assert again.code == 0
    assert json.loads(again.text)["result"]["operations"][0]["actions"] == []
    appliance = imgtools("sysprep", "-n", *guest, "--engine", "appliance")
    assert json.loads(appliance.text)["result"]["operations"][0]["actions"] == []
