"""get-kernel: the newest one, under the names of virt-get-kernel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.crafted import make_ext4, write_guest
from tests.direct.extracted import names_in

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]


def test_a_real_debian(image: Image, tmp_path: Path) -> None:
    disk = image("debian-lvm")
    done = imgtools("get-kernel", "-a", disk, "-o", tmp_path)
    assert (done.code, done.stderr) == (0, "")
    kernel, initramfs = names_in(tmp_path)[::-1]
    assert kernel.startswith("vmlinuz-6.1.0-")
    assert initramfs.startswith("initrd.img-6.1.0-")
    assert done.lines == [
        f"download: /boot/{name} -> {tmp_path}/{name}" for name in (kernel, initramfs)
    ]
    for name in (kernel, initramfs):
        read = imgtools("cat", "-a", disk, f"/boot/{name}").stdout
        assert (tmp_path / name).read_bytes() == read
    short = ("-o", tmp_path, "--unversioned-names", "--prefix", "web")
    result = json.loads(imgtools("get-kernel", "--json", disk, *short).stdout)["result"]
    assert "vmlinuz-" + result["version"] == kernel
    assert {"web-vmlinuz", "web-initrd.img"} < set(names_in(tmp_path))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "root").mkdir()
    write_guest(folder / "root")
    (folder / "root/sparse").unlink()
    (folder / "root/boot").mkdir()
    for version in ("6.9.1", "6.10.0", "5.4.0"):
        (folder / f"root/boot/vmlinuz-{version}").write_text(version, encoding="utf-8")
        (folder / f"root/boot/initramfs-{version}.img").write_text(version, encoding="utf-8")
    (folder / "root/boot/vmlinuz").symlink_to("vmlinuz-5.4.0")
    return make_ext4(folder / "root", folder / "disk.img")


def test_the_newest_with_its_own_initramfs(several: Path, tmp_path: Path) -> None:
    assert imgtools("get-kernel", "-q", several, "-o", tmp_path).stdout == b""
    assert names_in(tmp_path) == ["initramfs-6.10.0.img", "vmlinuz-6.10.0"]


def test_nothing_is_overwritten(several: Path, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-6.10.0").write_text("mine", encoding="utf-8")
    words = ("get-kernel", several, "-o", tmp_path)
    done = imgtools(*words)
    assert done.code == 8
    assert names_in(tmp_path) == ["vmlinuz-6.10.0"]
    assert (tmp_path / "vmlinuz-6.10.0").read_text(encoding="utf-8") == "mine"
    assert imgtools(*words, "--force").code == 0
    assert (tmp_path / "vmlinuz-6.10.0").read_text(encoding="utf-8") == "6.10.0"


def test_bad_words(several: Path, crafted: Path, tmp_path: Path) -> None:
    for words, code, complaint in [
        ((), 2, "which disk"),
        ((several, "/boot"), 2, "one word too many"),
        ((several, "--prefix", "../x"), 2, "part of a file name"),
        ((several, "-o", tmp_path / "none"), 1, "No such file or directory"),
        ((crafted, "-o", tmp_path), 6, "no kernel in /boot"),
    ]:
        done = imgtools("get-kernel", *words)
        assert (done.code, done.stdout) == (code, b""), done.stderr
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1
    assert names_in(tmp_path) == []
