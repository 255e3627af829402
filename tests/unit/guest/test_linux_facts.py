"""Users, services, boot, identity, icon: what the files say, and what damage costs."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.linux.elf import elf_arch
from imgtools.guest.linux.users import password_state
from imgtools.model.storage import BlockDevice, Partition, Storage
from tests.unit.guest.guests import DEBIAN, Files, elf, filesystem, inspect_files, session_of

pytestmark = pytest.mark.unit


def facts(files: Files) -> Files:
    return {**DEBIAN, **files}


# --- architecture --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "bits", "little", "arch"),
    [
        (62, 64, True, "x86_64"),
        (3, 32, True, "i386"),
        (183, 64, True, "aarch64"),
        (40, 32, True, "arm"),
        (21, 64, True, "ppc64le"),
        (21, 64, False, "ppc64"),
        (22, 64, False, "s390x"),
        (243, 64, True, "riscv64"),
        (9999, 64, True, ""),
    ],
)
def test_architectures(machine: int, bits: int, little: bool, arch: str) -> None:
    assert elf_arch(elf(machine, bits=bits, little=little)) == arch


@given(st.binary(max_size=24))
def test_no_header_ends_the_parser(header: bytes) -> None:
    elf_arch(header)
    elf_arch(b"\x7fELF" + header)


def test_a_binary_that_is_none_gives_way_to_the_next() -> None:
    files = facts({"usr/bin/bash": b"#!/bin/sh\n", "usr/bin/ls": "loop", "usr/bin/loop": "ls"})
    assert inspect_files({**files, "usr/bin/sh": elf(183)}).arch == "aarch64"


# --- identity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "hostname"),
    [
        ({"etc/hostname": b"# a comment\n\n  lemon.example.com  \nother\n"}, "lemon.example.com"),
        ({"etc/HOSTNAME": b"old\n"}, "old"),
        ({"etc/hostname": b"", "etc/sysconfig/network": b'A=1\nHOSTNAME="net"\n'}, "net"),
        ({"etc/hostname/x": b""}, ""),
        ({"etc/hostname": b"\x1b[2Jevil\xff\n"}, "\x1b[2Jevil\udcff"),
    ],
)
def test_hostname(files: Files, hostname: str) -> None:
    base = {k: v for k, v in DEBIAN.items() if k != "etc/hostname"}
    assert inspect_files({**base, **files}).hostname == hostname


@pytest.mark.parametrize(
    ("files", "zone"),
    [
        ({"etc/localtime": "/usr/share/zoneinfo/Europe/Berlin"}, "Europe/Berlin"),
        ({"etc/localtime": "../usr/share/zoneinfo/UTC"}, "UTC"),
        ({"etc/localtime": b"TZif2", "etc/timezone": b"Asia/Tokyo\n"}, "Asia/Tokyo"),
        ({"etc/sysconfig/clock": b'ZONE="America/New_York"\n'}, "America/New_York"),
        ({}, ""),
    ],
)
def test_timezone(files: Files, zone: str) -> None:
    assert inspect_files(facts(files)).timezone == zone


@pytest.mark.parametrize(
    ("files", "locale"),
    [
        ({"etc/locale.conf": b"LANG=de_DE.UTF-8\nLC_TIME=C\n"}, "de_DE.UTF-8"),
        ({"etc/default/locale": b'#x\nLANG="C.UTF-8"\n'}, "C.UTF-8"),
        ({"etc/profile.d/20locale.sh": b"export LANG=${LANG:-C.UTF-8}\n"}, "C.UTF-8"),
        ({}, ""),
    ],
)
def test_locale(files: Files, locale: str) -> None:
    assert inspect_files(facts(files)).locale == locale


def test_machine_id() -> None:
    assert inspect_files(facts({"etc/machine-id": b"0" * 32 + b"\n"})).machine_id == "0" * 32
    assert inspect_files(facts({"etc/machine-id": b"uninitialized\n"})).machine_id == ""


# --- users ---------------------------------------------------------------------------------------

PASSWD = b"""root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sync:x:4:65534:sync:/bin:/bin/sync
alice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh
bob::1001:1001::/home/bob:
carol:x:1002:1002::/home/carol:/bin/bash
broken:x:one:1:::/bin/sh
short:x
"""
SHADOW = b"root:!$y$j9T$abcdefgh:1:0:99999:7:::\nalice:$6$salt$hashhashhash:1::::::\n"


def test_users_who_can_log_in() -> None:
    found = inspect_files(
        facts(
            {
                "etc/passwd": PASSWD,
                "etc/shadow": SHADOW,
                "home/alice/.ssh/authorized_keys": b"# c\nssh-rsa A\n\nssh-ed25519 B x\n",
                "root/.ssh/authorized_keys": "authorized_keys",
            }
        )
    )
    assert [(u.name, u.uid, u.shell, u.password, u.login_methods) for u in found.users] == [
        ("root", 0, "/bin/bash", "locked", ()),
        ("alice", 1000, "/bin/zsh", "set", ("password", "ssh-key")),
        ("bob", 1001, "/bin/sh", "empty", ("no-password",)),
        ("carol", 1002, "/bin/bash", "unknown", ()),
    ]
    assert found.users[1].ssh_keys == 2
    messages = [w.message for w in found.warnings if w.code == "inspect.users"]
    assert len(messages) == 3  # two lines, one loop of links


@pytest.mark.parametrize(
    ("secret", "state"),
    [
        (None, "unknown"),
        (b"", "empty"),
        (b"!", "locked"),
        (b"*", "locked"),
        (b"!!$1$x", "locked"),
        (b"$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7", "set"),
        (b"abJnggxhB/yWI", "set"),
    ],
)
def test_password_states(secret: bytes | None, state: str) -> None:
    assert password_state(secret) == state


def test_no_hash_leaves() -> None:
    found = inspect_files(facts({"etc/passwd": PASSWD, "etc/shadow": SHADOW}))
    assert "hashhash" not in repr(found)


@given(st.binary(max_size=200))
def test_no_passwd_ends_inspection(content: bytes) -> None:
    found = inspect_files(facts({"etc/passwd": content, "etc/shadow": content}))
    assert found.distro == "debian"


def test_a_million_users_are_cut() -> None:
    lines = b"".join(b"u%d:x:%d:1::/:/bin/sh\n" % (n, n) for n in range(60_000))
    found = inspect_files(facts({"etc/passwd": lines}))
    assert len(found.users) == 5000
    assert any("accounts" in w.message for w in found.warnings)


# --- services ------------------------------------------------------------------------------------


def test_systemd_services() -> None:
    unit = "/lib/systemd/system/x.service"
    found = inspect_files(
        facts(
            {
                "sbin/init": "/lib/systemd/systemd",
                "lib/systemd/systemd": elf(),
                "etc/systemd/system/multi-user.target.wants/ssh.service": unit,
                "etc/systemd/system/graphical.target.wants/ssh.service": unit,
                "etc/systemd/system/sockets.target.requires/dbus.socket": unit,
                "etc/systemd/system/ignored.conf/x": b"",
                "lib/systemd/system/cron.service": b"",
                "etc/rc2.d/S01cron": "../init.d/cron",
                "etc/rc2.d/S01legacy": "../init.d/legacy",
                "etc/rc2.d/K01stopped": "../init.d/stopped",
            }
        )
    )
    assert found.init == "systemd"
    assert [(s.name, s.manager, s.wanted_by) for s in found.services] == [
        ("dbus.socket", "systemd", ("sockets.target",)),
        ("legacy", "sysvinit", ("2",)),
        ("ssh.service", "systemd", ("graphical.target", "multi-user.target")),
    ]


@pytest.mark.parametrize(
    ("files", "init", "services"),
    [
        (
            {
                "sbin/init": "/bin/busybox",
                "bin/busybox": elf(),
                "sbin/openrc": elf(),
                "etc/runlevels/default/sshd": "/etc/init.d/sshd",
                "etc/runlevels/boot/hostname": "/etc/init.d/hostname",
            },
            "openrc",
            ["hostname", "sshd"],
        ),
        ({"sbin/init": "/bin/busybox", "bin/busybox": elf()}, "busybox", []),
        (
            {"sbin/init": elf(), "etc/inittab": b"", "etc/rc3.d/S20ssh": "../init.d/ssh"},
            "sysvinit",
            ["ssh"],
        ),
        (
            {"sbin/init": elf(), "sbin/initctl": elf(), "etc/init/cron.conf": b""},
            "upstart",
            ["cron"],
        ),
        (
            {"sbin/init": "runit-init", "etc/runit/runsvdir/default/sshd": "/etc/sv/sshd"},
            "runit",
            ["sshd"],
        ),
    ],
)
def test_other_init_systems(files: Files, init: str, services: list[str]) -> None:
    base: Files = {"etc/hosts": b"", "bin/": None}
    found = inspect_files({**base, **files})
    assert found.init == init
    assert [s.name for s in found.services] == services


# --- boot ----------------------------------------------------------------------------------------


def bzimage(version: bytes) -> bytes:
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = struct.pack("<H", 0x100)
    head[0x300 : 0x300 + len(version) + 1] = version + b"\0"
    return bytes(head)


def test_kernels() -> None:
    found = inspect_files(
        facts(
            {
                "boot/vmlinuz-6.1.0-9-amd64": b"",
                "boot/vmlinuz-6.1.0-37-amd64": b"",
                "boot/vmlinuz-6.1.0-37-amd64.hmac": b"",
                "boot/initrd.img-6.1.0-37-amd64": b"",
                "boot/vmlinuz": "vmlinuz-6.1.0-37-amd64",
                "boot/config-6.1.0-37-amd64": b"",
                "boot/vmlinuz-linux": bzimage(b"6.6.1-arch1-1 (linux@archlinux) #1 SMP"),
                "boot/initramfs-linux.img": b"",
                "boot/vmlinuz-lts": b"not a bzImage",
                "usr/lib/modules/6.1.0-37-amd64/": None,
                "usr/lib/modules/6.9.9-200.fc40/vmlinuz": b"",
            }
        )
    )
    assert [(k.version, k.path, k.initramfs, k.modules) for k in found.kernels] == [
        ("lts", "/boot/vmlinuz-lts", "", ""),
        ("6.1.0-9-amd64", "/boot/vmlinuz-6.1.0-9-amd64", "", ""),
        (
            "6.1.0-37-amd64",
            "/boot/vmlinuz-6.1.0-37-amd64",
            "/boot/initrd.img-6.1.0-37-amd64",
            "/usr/lib/modules/6.1.0-37-amd64",
        ),
        ("6.6.1-arch1-1", "/boot/vmlinuz-linux", "/boot/initramfs-linux.img", ""),
        (
            "6.9.9-200.fc40",
            "/usr/lib/modules/6.9.9-200.fc40/vmlinuz",
            "",
            "/usr/lib/modules/6.9.9-200.fc40",
        ),
    ]


@pytest.mark.parametrize(
    ("files", "loader", "config", "firmware"),
    [
        ({"boot/grub/grub.cfg": b""}, "grub2", "/boot/grub/grub.cfg", ("bios",)),
        (
            {"boot/grub2/grub.cfg": b"", "boot/efi/EFI/fedora/shimx64.efi": b""},
            "grub2",
            "/boot/grub2/grub.cfg",
            ("uefi",),
        ),
        (
            {"boot/grub/grub.cfg": b"", "boot/grub/i386-pc/": None, "boot/efi/efi/boot/B.EFI": b""},
            "grub2",
            "/boot/grub/grub.cfg",
            ("bios", "uefi"),
        ),
        ({"boot/grub/menu.lst": b""}, "grub-legacy", "/boot/grub/menu.lst", ("bios",)),
        (
            {"efi/loader/loader.conf": b"", "efi/EFI/systemd/systemd-bootx64.efi": b""},
            "systemd-boot",
            "/efi/loader/loader.conf",
            ("uefi",),
        ),
        ({"boot/extlinux.conf": b""}, "extlinux", "/boot/extlinux.conf", ("bios",)),
    ],
)
def test_bootloaders(files: Files, loader: str, config: str, firmware: tuple[str, ...]) -> None:
    found = inspect_files(facts(files))
    assert found.bootloader is not None
    assert (found.bootloader.type, found.bootloader.config) == (loader, config)
    assert found.firmware == firmware


def test_an_esp_that_is_not_in_fstab_is_found() -> None:
    esp = {"EFI/systemd/systemd-bootx64.efi": b"", "loader/loader.conf": b""}
    storage = Storage(
        devices=(BlockDevice(name="/dev/sda", size=1, disk=0),),
        partitions=(
            Partition(name="/dev/sda1", size=1, parent="/dev/sda", number=1, table="gpt"),
            Partition(
                name="/dev/sda2",
                size=1,
                parent="/dev/sda",
                number=2,
                table="gpt",
                gpt_type="C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            ),
            Partition(
                name="/dev/sda3",
                size=1,
                parent="/dev/sda",
                number=3,
                table="gpt",
                gpt_type="21686148-6449-6E6F-744E-656564454649",
            ),
        ),
        filesystems=(filesystem("/dev/sda1"), filesystem("/dev/sda2", "vfat")),
    )
    session, _ = session_of({"/dev/sda1": DEBIAN, "/dev/sda2": esp}, storage)
    (found,) = inspect_guests(session)
    assert found.bootloader is not None
    assert found.bootloader.config == "ESP:/loader/loader.conf"
    assert found.firmware == ("bios", "uefi")


# --- icon ----------------------------------------------------------------------------------------


def png(width: int, height: int, size: int = 100) -> bytes:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return head.ljust(size, b"\0")


ICON = "usr/share/pixmaps/debian-logo.png"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (png(48, 48, 2048), True),
        (png(48, 48, 2049), False),
        (png(8, 48), False),
        (png(2000, 48), False),
        (b"GIF89a" + b"\0" * 99, False),
        (b"\x89PNG\r\n\x1a\n", False),
    ],
)
def test_icon(content: bytes, found: bool) -> None:
    icon = inspect_files(facts({ICON: content})).icon
    assert base64.b64decode(icon) == (content if found else b"")


def test_icon_and_applications_only_on_request() -> None:
    found = inspect_files(facts({ICON: png(48, 48)}), icon=False, applications=False)
    assert found.icon == ""
    assert found.applications == ()
