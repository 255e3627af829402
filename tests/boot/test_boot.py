"""A guest that was changed comes up with the change: a real Debian, booted under TCG."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli import imgtools

pytestmark = [pytest.mark.boot, pytest.mark.appliance, pytest.mark.timeout(600)]

UNIT = """\
[Unit]
After=local-fs.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'echo "came up as $(cat /proc/sys/kernel/hostname) with $(cat /srv/note)"'
ExecStart=/bin/systemctl --no-block poweroff
"""


CLONE = """\
[Unit]
After=ssh.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'echo "id $(cat /etc/machine-id)"'
ExecStart=/bin/sh -c 'echo "sshd $(systemctl is-active ssh.service)"'
ExecStart=/bin/sh -c 'for key in /etc/ssh/ssh_host_*_key.pub; do echo "key $(cat $key)"; done'
ExecStart=/bin/systemctl --no-block poweroff
"""


def overlay(base: Path, disk: Path) -> Path:
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    subprocess.run([*make, "-b", base, disk], check=True)
    return disk


def boot(*disks: Path, more: Sequence[str] = ()) -> list[bytes]:
    """Boot guests at the same time, until each turns itself off; what they said on ttyS1.

    ttyS0 is the console, where the kernel and systemd write in between; ``more`` are words for
    qemu.
    """
    with contextlib.ExitStack() as stack:
        guests = [
            stack.enter_context(
                subprocess.Popen(
                    ["qemu-system-x86_64", "-M", "q35,accel=tcg", "-cpu", "max", "-m", "1024",
                     "-smp", "2", "-display", "none", "-nodefaults", "-no-reboot",
                     "-serial", f"file:{disk}.console", "-serial", f"file:{disk}.proof",
                     "-drive", f"file={disk},format=qcow2,if=virtio", *more],
                )
            )
            for disk in disks
        ]  # fmt: skip
        try:
            assert [guest.wait(timeout=500) for guest in guests] == [0] * len(disks)
        finally:
            for guest in guests:
                guest.kill()
    return [Path(f"{disk}.proof").read_bytes() for disk in disks]


def test_two_clones_of_a_template_are_two_machines(
    image: Callable[[str], Path], tmp_path: Path
) -> None:
    template = overlay(image("debian-plain"), tmp_path / "template.qcow2")
    before = imgtools("cat", "-a", template, "/etc/machine-id", "/etc/ssh/ssh_host_rsa_key.pub")
    wants = "/etc/systemd/system/multi-user.target.wants"
    unit, steps = tmp_path / "unit", tmp_path / "steps"
    unit.write_text(CLONE)
    steps.write_text(f"""\
write /etc/systemd/system/proof.service --from {unit}
mkdir -p {wants}
ln -s ../proof.service {wants}/proof.service
""")
    assert imgtools("apply", "-a", template, steps).code == 0
    done = imgtools("sysprep", "-a", template)
    assert done.code == 0, done.stderr
    assert imgtools("sysprep", "--check", "-a", template).code == 0
    clones = [overlay(template, tmp_path / f"clone{number}.qcow2") for number in (1, 2)]
    ids, keys = [], []
    for said in boot(*clones):
        lines = said.decode(errors="replace").replace("\r", "").splitlines()
        assert "sshd active" in lines, said
        ids += [line for line in lines if re.fullmatch("id [0-9a-f]{32}", line)]
        keys.append({line for line in lines if line.startswith("key ssh-rsa ")})
    assert len(ids) == len(set(ids)) == 2
    assert [len(found) for found in keys] == [1, 1]
    assert keys[0] != keys[1]
    told = before.stdout.decode()
    assert all(one.removeprefix("id ") not in told for one in ids)
    assert all(one.removeprefix("key ") not in told for found in keys for one in found)


def test_a_customized_guest_does_at_its_first_boot_what_was_asked(
    image: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = overlay(image("debian-plain"), tmp_path / "guest.qcow2")
    secret = tmp_path / "secret"
    secret.write_text("its new password\n")
    script = tmp_path / "facts"
    # Root need not know a password to be alice; daemon must.
    script.write_text("""\
#!/bin/bash
exec > /dev/ttyS1
echo "name $(hostname) at $(date +%Z)"
become() { setpriv --reuid daemon --clear-groups su alice -c 'id -un' 2>/dev/null; }
echo "right $(become < /root/typed)"
echo "wrong $(echo another password | become)"
sleep 3600 &
""")
    done = imgtools(
        "customize", "-a", disk, "--hostname", "booted.example.com", "--timezone", "Asia/Tokyo",
        "--password", f"alice:file:{secret}", "--upload", f"{secret}:/root/typed",
        "--firstboot-command", "echo 'the first fails'; exit 3",
        "--firstboot", script,
        "--firstboot-command", "systemd-run sh -c "
        "'while [ -e /usr/lib/imgtools-firstboot ]; do sleep 1; done; systemctl poweroff'",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    (said,) = boot(disk)
    lines = said.replace(b"\r", b"").splitlines()
    assert lines == [b"name booted.example.com at JST", b"right alice", b"wrong "]
    log = imgtools("cat", "--engine", "direct", "-a", disk, "/root/virt-sysprep-firstboot.log")
    ended = re.findall(
        rb"^(?:the first fails|=== (\S+) ended with status (\d+))$", log.stdout, re.MULTILINE
    )
    assert ended == [
        (b"", b""),
        (b"0001-echo-the-first-fails-exit-3", b"3"),
        (b"0002-facts", b"0"),
        (b"0003-systemd-run-sh-c-while-e-usr-lib-imgtools-firstboot-do-sleep", b"0"),
    ]
    for path in "/usr/lib", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants":
        names = imgtools("ls", "--engine", "direct", "-a", disk, path).stdout.decode().split()
        assert names
        assert not [name for name in names if "firstboot" in name]


def test_a_changed_guest_comes_up_with_the_change(
    image: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = overlay(image("debian-plain"), tmp_path / "guest.qcow2")
    unit = tmp_path / "unit"
    unit.write_text(UNIT)
    wants = "/etc/systemd/system/multi-user.target.wants"
    steps = tmp_path / "steps"
    steps.write_text(f"""\
write /etc/systemd/system/proof.service --from {unit}
mkdir -p {wants}
ln -s ../proof.service {wants}/proof.service
edit /etc/hostname -e 's/.*/changed/'
write /srv/note --content 'the change'
""")
    done = imgtools("apply", "-a", disk, steps)
    assert done.code == 0, done.stderr
    (said,) = boot(disk)
    assert b"came up as changed with the change" in said
    # A guest that shut down cleanly: the direct engine reads it, and finds the journal's boot.
    found = imgtools("cat", "--engine", "direct", "-a", disk, "/etc/hostname", "/srv/note")
    assert found.stdout == b"changed\nthe change\n"
