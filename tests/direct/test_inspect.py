"""inspect on real images through the direct engine: every family, its package database, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from fixtures import rpmdb
from fixtures.rpmdb import Rpm
from imgtools.guest.packages import collect_packages
from tests.cli import imgtools
from tests.unit.guest.guests import guest_tree

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]

SCHEMA = Path(__file__).parents[1] / "data" / "virt-inspector.rng"


def inspected(path: Path, *words: str) -> list[dict[str, Any]]:
    result = imgtools("inspect", "--json", "-a", path, "--engine", "direct", *words)
    assert result.code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["schema"], document["engine"]) == ("imgtools/inspect", "direct")
    assert document["warnings"] == []
    guests: list[dict[str, Any]] = document["result"]
    return guests


# name -> distro, version, package format, manager, how many packages, init, firmware, loader
FAMILIES = {
    "debian-plain": ("debian", 12, "deb", "apt", "systemd", "grub2"),
    "debian-lvm": ("debian", 12, "deb", "apt", "systemd", "grub2"),
    "ubuntu": ("ubuntu", 22, "deb", "apt", "systemd", "grub2"),
    "fedora": ("fedora", 39, "rpm", "dnf", "systemd", "grub2"),
    "rhel": ("rhel", 9, "rpm", "dnf", "systemd", "grub2"),
    "centos": ("centos", 7, "rpm", "yum", "systemd", "grub2"),
    "rocky": ("rocky", 8, "rpm", "dnf", "systemd", "grub2"),
    "almalinux": ("almalinux", 9, "rpm", "dnf", "systemd", "grub2"),
    "opensuse": ("opensuse", 15, "rpm", "zypper", "systemd", "grub2"),
    "sles": ("sles", 15, "rpm", "zypper", "systemd", "grub2"),
    "arch": ("archlinux", 0, "pacman", "pacman", "systemd", "systemd-boot"),
    "alpine": ("alpinelinux", 3, "apk", "apk", "openrc", "extlinux"),
    "amazon": ("amzn", 2023, "rpm", "dnf", "systemd", "grub2"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(image: Image, name: str) -> None:
    (guest,) = inspected(image(name))
    found = (
        guest["distro"],
        guest["major_version"],
        guest["package_format"],
        guest["package_management"],
        guest["init"],
        guest["bootloader"]["type"],
    )
    assert found == FAMILIES[name]
    assert guest["applications"]
    assert guest["kernels"]
    assert guest["hostname"]
    assert guest["users"]
    assert guest["services"]


def test_the_real_guest(image: Image) -> None:
    (guest,) = inspected(image("debian-lvm"))
    assert guest["root"] == "/dev/debian-vg/root"
    assert guest["firmware"] == ["uefi"]
    assert [(m["path"], m["device"]) for m in guest["mountpoints"]] == [
        ("/", "/dev/debian-vg/root"),
        ("/boot", "/dev/sda2"),
        ("/home", "/dev/debian-vg/home"),
        ("/boot/efi", "/dev/sda1"),
    ]
    users = {user["name"]: user for user in guest["users"]}
    assert set(users) == {"root", "alice"}
    assert (users["alice"]["password"], users["alice"]["ssh_keys"]) == ("set", 1)
    assert users["root"]["password"] == "locked"
    names = {application["name"] for application in guest["applications"]}
    assert {"bash", "libc6", "systemd", "dpkg"} <= names
    assert "ssh.service" in {service["name"] for service in guest["services"]}
    (kernel,) = guest["kernels"]
    assert kernel["path"] == f"/boot/vmlinuz-{kernel['version']}"
    assert kernel["modules"]


def test_several_systems(image: Image) -> None:
    first, second = inspected(image("multiboot"))
    assert (first["distro"], first["hostname"]) == ("debian", "first")
    assert (second["distro"], second["hostname"]) == ("archlinux", "second")


def test_a_distribution_that_nobody_knows(image: Image) -> None:
    (guest,) = inspected(image("unknown"))
    assert guest["distro"] == guest["id"] == "acmeos"
    assert guest["id_like"] == ["ubuntu", "debian"]
    assert (guest["package_format"], guest["package_management"]) == ("deb", "apt")
    assert guest["applications"]


def test_a_snapshot_is_no_second_system(image: Image) -> None:
    (guest,) = inspected(image("opensuse"))
    assert guest["mountpoints"][0] == {"path": "/", "device": guest["root"]}


@pytest.mark.parametrize("name", FAMILIES)
def test_xml_is_valid(image: Image, name: str) -> None:
    result = imgtools("inspect", "--xml", "-a", image(name), "--engine", "direct")
    document = etree.fromstring(result.stdout)
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    if name == "rocky":  # virt-inspector writes what its own schema lacks, and so do we
        document.find(".//distro").text = "centos"
    assert schema.validate(document), schema.error_log


def test_xpath_and_the_same_on_stdin(image: Image) -> None:
    words = ("inspect", "--xpath", "//hostname/text()")
    disk = image("debian-plain")
    document = imgtools("inspect", "--xml", disk).stdout
    answer = imgtools(*words, "-a", disk)
    assert answer.lines == imgtools(*words, stdin=document).lines
    assert len(answer.lines) == 1


def test_the_table_fits_eighty_columns(image: Image) -> None:
    result = imgtools("inspect", image("debian-lvm"))
    assert max(map(len, result.lines)) <= 80
    assert "Debian GNU/Linux 12 (bookworm)" in result.lines[0]
    assert any("alice" in line and "ssh key" in line for line in result.lines)
    more = imgtools("inspect", image("debian-lvm"), "--applications", "--services")
    assert any(line.split()[:1] == ["libc6"] for line in more.lines)
    assert any(line.split()[:1] == ["ssh.service"] for line in more.lines)


def test_no_system_is_exit_3(tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    with empty.open("wb") as stream:
        stream.truncate(8 << 20)
    result = imgtools("inspect", "--format", "raw", "-a", empty)
    assert (result.code, result.stdout) == (3, b"")
    assert "no operating system" in result.stderr


# --- rpm's databases, made by the real rpm -----------------------------------------------------

PACKAGES = (
    Rpm(name="same", version="1", release="1", summary="first", vendor="V", url="http://u/"),
    Rpm(name="epoch", version="2", release="1", summary="e", epoch=7, packager="P"),
    Rpm(name="long", version="3~rc1", release="1.el9", summary="l", arch="noarch", paragraphs=900),
)


@pytest.mark.parametrize("form", ["sqlite", "ndb", "bdb"])
def test_rpm_databases(form: str, tmp_path: Path) -> None:
    database = tmp_path / "db"
    rpmdb.make_database(database, PACKAGES, form)
    tree = guest_tree({f"var/lib/rpm/{rpmdb.FILES[form]}": database.read_bytes()})
    found = collect_packages(tree, "rpm")
    assert found.complaints == []
    shown = [
        (a.name, a.epoch, a.version, a.release, a.arch, a.publisher, a.url) for a in found.sorted()
    ]
    assert shown == [
        ("epoch", 7, "2", "1", "x86_64", "P", ""),
        ("long", 0, "3~rc1", "1.el9", "noarch", "", ""),
        ("same", 0, "1", "1", "x86_64", "V", "http://u/"),
    ]
    assert all(a.source_package.endswith(".src.rpm") for a in found.applications)
