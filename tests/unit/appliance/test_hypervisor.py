"""What libguestfs takes for qemu: which launches it resumes, and which the real one gets."""

from __future__ import annotations

from typing import Any

import pytest

from imgtools.appliance.instant.hypervisor import (
    FOLDER,
    GO_SIZE,
    NotOursError,
    check,
    fill,
    go_line,
    parse,
    shape,
)
from imgtools.appliance.instant.machine import machine_words, memory_size

pytestmark = pytest.mark.unit

HERE = "/cache/instant/t"
# What libguestfs 1.48.6 gives its qemu, with one disk.
HEAD = [
    *("-global", "virtio-blk-pci.scsi=off", "-no-user-config", "-nodefaults", "-display", "none"),
    *("-machine", "accel=tcg", "-cpu", "max,la57=off", "-m", "1280", "-no-reboot"),
    *("-rtc", "driftfix=slew", "-no-hpet", "-global", "kvm-pit.lost_tick_policy=discard"),
    *("-kernel", f"{HERE}/kernel", "-initrd", f"{HERE}/initrd"),
    *("-object", "rng-random,filename=/dev/urandom,id=rng0"),
    *("-device", "virtio-rng-pci,rng=rng0", "-device", "virtio-scsi-pci,id=scsi"),
]
DISK = [
    *("-drive", "file=/tmp/a,,b.img,cache=unsafe,format=qcow2,id=hd0,if=none"),
    *("-device", "scsi-hd,drive=hd0"),
]
TAIL = [
    *("-drive", f"file={HERE}/root,snapshot=on,id=appliance,cache=unsafe,if=none,format=raw"),
    *("-device", "scsi-hd,drive=appliance", "-device", "virtio-serial-pci", "-serial", "stdio"),
    *("-chardev", "socket,path=/tmp/x/guestfsd.sock,id=channel0"),
    *("-device", "virtserialport,chardev=channel0,name=org.libguestfs.channel.0"),
    *("-append", "panic=1 console=ttyS0 lpj=123 root=UUID=1-2 selinux=0 quiet TERM=linux"),
]


def changed(old: str, new: str) -> list[str]:
    return [word.replace(old, new) for word in [*HEAD, *DISK, *TAIL]]


@pytest.fixture
def template() -> dict[str, Any]:
    return {"shape": shape(parse([*HEAD, *DISK, *TAIL]), HERE)}


@pytest.mark.parametrize(
    "words",
    [
        [*HEAD, *DISK, *TAIL],
        [*HEAD, *TAIL],
        [*HEAD, "-blockdev", '{"node-name": "disk0"}', *DISK, *TAIL],
        changed("lpj=123", "lpj=456"),
        changed("TERM=linux", "TERM=xterm-256color"),
        changed("quiet", "guestfs_verbose=1"),
        changed("accel=tcg", "accel=tcg,graphics=off"),
        changed("drive=hd0", "drive=hd0,serial=a,physical_block_size=4096,logical_block_size=4096"),
    ],
)
def test_what_is_resumed(words: list[str], template: dict[str, Any]) -> None:
    check(parse(words), template, HERE)


@pytest.mark.parametrize(
    "words",
    [
        changed("1280", "2048"),
        changed("accel=tcg", "accel=kvm:tcg"),
        changed("la57=off", "la57=on"),
        changed("selinux=0", "selinux=1"),
        changed("panic=1", "panic=1 guestfs_network=1"),
        changed("panic=1", "panic=1 guestfs_rescue=1"),
        changed(f"{HERE}/kernel", "/elsewhere/kernel"),
        changed(f"{HERE}/root", "/elsewhere/root"),
        changed("scsi-hd,drive=hd0", "virtio-blk-pci,drive=hd0"),
        changed("drive=hd0", "drive=hd0,share-rw=on"),
        [*HEAD, "-smp", "2", *DISK, *TAIL],
        [*HEAD, "-netdev", "user,id=usernet", *DISK, *TAIL],
        [*HEAD, "-device", "virtio-net-pci,netdev=usernet", *DISK, *TAIL],
        [*HEAD, "-object", "secret,id=s,file=/k", *DISK, *TAIL],
        [*HEAD, *DISK[:2], *TAIL],
        [*HEAD, *DISK],
        [*HEAD, *DISK, *TAIL, "-cdrom"],
    ],
)
def test_what_is_left_to_the_real_qemu(words: list[str], template: dict[str, Any]) -> None:
    with pytest.raises(NotOursError):
        check(parse(words), template, HERE)


def test_a_file_name_cannot_pose_as_an_option(template: dict[str, Any]) -> None:
    launch = parse(changed("/tmp/a,,b.img", "/tmp/,,id=appliance,,x"))
    assert [drive for drive, _ in launch.disks] == [
        "file=/tmp/,,id=appliance,,x,cache=unsafe,format=qcow2,id=hd0,if=none"
    ]


def test_the_machine_is_libguestfs_s_with_its_memory_in_a_file() -> None:
    launch = parse([*HEAD, *DISK, *TAIL])
    assert memory_size(launch) == 1280
    machine = [word.replace(HERE, FOLDER) for word in machine_words(launch)]
    built = fill(machine, folder="/new", resume=False, go="/go")
    resumed = fill(machine, folder="/new", resume=True, go="/dev/fd/3")
    assert "memory-backend-file,id=mem,size=1280M,mem-path=/new/ram,share=on" in built
    assert "memory-backend-file,id=mem,size=1280M,mem-path=/new/ram,share=off" in resumed
    assert not [word for word in (*built, *resumed) if "@" in word or HERE in word]
    assert len(built) == len(resumed)
    assert len([pair for pair in zip(built, resumed, strict=True) if pair[0] != pair[1]]) == 3


def test_the_guest_is_told_what_this_launch_is_about() -> None:
    line = go_line(parse([*HEAD, *DISK, *TAIL]), seed="ab" * 64, now=1.5)
    assert len(line) == GO_SIZE
    text = line.rstrip(b"\0").decode()
    assert text == f"go disks=1 labels=0 verbose=0 time=1.500000 seed={'ab' * 64} \n"
