"""Guests named by -d: shut off, running, in a pool, many at once, some of them broken."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.libvirt.conftest import Define, virsh

pytestmark = pytest.mark.libvirt

Image = Callable[[str], Path]
Overlay = Callable[[Path], Path]


def _locks(path: Path) -> list[str]:
    """The kernel's record of locks on a file: kind, mode, holder, range."""
    inode = path.stat().st_ino
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return sorted(line.partition(": ")[2] for line in lines if f":{inode} " in line)


def test_a_domain_that_is_shut_off(image: Image, define: Define, libvirtd: str) -> None:
    disk = image("debian-lvm")
    domain = define("imgtools-off", disk)
    by_domain = imgtools("df", "--csv", "-c", libvirtd, "-d", domain.name)
    by_image = imgtools("df", "--csv", "-a", disk)
    assert (by_domain.code, by_domain.stderr) == (0, "")
    assert by_domain.text == by_image.text.replace(disk.name, domain.name)
    by_uuid = imgtools("df", "--csv", "--uuid", "-c", libvirtd, "-d", domain.uuid)
    assert by_uuid.text == by_image.text.replace(disk.name, domain.uuid)
    os_release = imgtools("cat", "-c", libvirtd, "-d", domain.name, "/etc/os-release")
    assert "ID=debian" in os_release.text
    positional = imgtools("ls", "-c", libvirtd, domain.name, "/home")
    assert positional.code == 0
    inspected = imgtools("inspect", "--json", "-c", libvirtd, "-d", domain.name)
    assert inspected.code == 0
    assert "debian" in inspected.text


def test_a_running_domain_is_read_with_a_warning_and_not_disturbed(
    image: Image, define: Define, overlay: Overlay, libvirtd: str
) -> None:
    disk = overlay(image("debian-lvm"))
    domain = define("imgtools-running", disk)
    domain.start_paused()
    before = _locks(disk)
    assert before, "qemu holds locks on the image of a running domain"
    result = imgtools("df", "--csv", "--engine", "direct", "-c", libvirtd, "-d", domain.name)
    assert result.code == 0
    assert result.stderr.count("warning") == 1
    assert "in use" in result.stderr
    assert len(result.lines) == 5
    cat = imgtools("cat", "--engine", "direct", "-c", libvirtd, "-d", domain.name, "/etc/hostname")
    assert cat.code == 0
    strict = imgtools("df", "--strict", "--engine", "direct", "-a", disk)
    assert strict.code == 20
    assert _locks(disk) == before
    assert virsh("domstate", domain.name) == "paused"
    # The guest can still write (here between the partition table and the first partition).
    backend = "/machine/peripheral/virtio-disk0/virtio-backend"
    for action in ("write -P 7 65536 512", "flush"):
        command = f'qemu-io -d {backend} "{action}"'
        assert virsh("qemu-monitor-command", "--hmp", domain.name, command) == ""
    virsh("destroy", domain.name)
    read = subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 65536 512", disk],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "read 512/512 bytes" in read.stdout
    assert "verification failed" not in read.stdout


def test_a_disk_in_a_storage_pool(
    image: Image, define: Define, tmp_path: Path, libvirtd: str
) -> None:
    subprocess.run(
        ["cp", "--reflink=auto", image("debian-plain"), tmp_path / "v.qcow2"], check=True
    )
    virsh("pool-create-as", "imgtools-pool", "dir", "--target", str(tmp_path))
    try:
        source = "<source pool='imgtools-pool' volume='v.qcow2'/>"
        domain = define("imgtools-volume", tmp_path / "v.qcow2", source=source)
        result = imgtools("filesystems", "-c", libvirtd, "-d", domain.name)
        assert (result.code, result.stderr) == (0, "")
        assert result.text == imgtools("filesystems", "-a", tmp_path / "v.qcow2").text
    finally:
        virsh("pool-destroy", "imgtools-pool")


def test_all_domains_at_once_and_one_that_is_broken(
    image: Image, define: Define, overlay: Overlay, tmp_path: Path, libvirtd: str
) -> None:
    good = define("imgtools-good", overlay(image("debian-lvm")))
    plain = define("imgtools-plain", overlay(image("debian-plain")))
    missing = define("imgtools-missing", tmp_path / "missing.qcow2")
    garbage = tmp_path / "garbage.qcow2"
    garbage.write_bytes(b"no qcow2 at all" * 100)
    define("imgtools-garbage", garbage)
    result = imgtools("df", "--csv", "-c", libvirtd)
    assert result.code == 1
    names = {line.partition(",")[0] for line in result.lines[1:]}
    assert {good.name, plain.name} <= names
    assert missing.name not in names
    complaints = [line for line in result.stderr.splitlines() if "imgtools-" in line]
    assert [line.split(": ")[1] for line in complaints] == ["imgtools-garbage", "imgtools-missing"]
    parsed = json.loads(imgtools("df", "--json", "-P", "1", "-c", libvirtd).stdout)
    guests = {guest["name"]: guest for guest in parsed["result"]}
    assert guests[good.name]["error"] is None
    assert guests[missing.name]["error"]["code"] == "image.not-found"
    assert guests[good.name]["uuid"] == good.uuid


def test_several_domains_are_several_guests(
    image: Image, define: Define, overlay: Overlay, libvirtd: str
) -> None:
    one = define("imgtools-one", overlay(image("debian-lvm")))
    two = define("imgtools-two", overlay(image("debian-plain")))
    result = imgtools("df", "--csv", "-c", libvirtd, "-d", two.name, "-d", one.name)
    assert result.code == 0
    names = [line.partition(",")[0] for line in result.lines[1:]]
    assert names == sorted(names, reverse=True)
    assert set(names) == {one.name, two.name}


def test_no_such_domain_exits_3_with_a_suggestion(
    image: Image, define: Define, libvirtd: str
) -> None:
    define("imgtools-webserver", image("debian-lvm"))
    result = imgtools("df", "-c", libvirtd, "-d", "imgtools-webservr")
    assert (result.code, result.stdout) == (3, b"")
    assert "did you mean: imgtools-webserver" in result.stderr
    assert result.stderr.count("\n") == 1


def test_diff_of_two_domains_and_of_one_with_its_backing_file(
    image: Image, define: Define, libvirtd: str
) -> None:
    overlay = image("qcow2-on-raw")
    base = overlay.with_name("base.raw")
    old = define("imgtools-diff-old", base, "raw")
    new = define("imgtools-diff-new", overlay)
    expected = imgtools("diff", "-a", base, "-A", overlay)
    assert expected.code == 10
    both = imgtools("diff", "-c", libvirtd, "-d", old.name, "-D", new.name)
    assert (both.code, both.stdout, both.stderr) == (10, expected.stdout, "")
    words = imgtools("diff", "-c", libvirtd, old.name, new.name)
    assert (words.code, words.stdout) == (10, expected.stdout)
    mixed = imgtools("diff", "-c", libvirtd, "-a", base, "-D", new.name)
    assert (mixed.code, mixed.stdout) == (10, expected.stdout)
    backing = imgtools("diff", "-c", libvirtd, "-d", new.name, "--backing")
    assert (backing.code, backing.stdout) == (10, expected.stdout)
