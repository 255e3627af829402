"""A guest that was changed comes up with the change: a real Debian, booted under TCG."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
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
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'echo "came up as $(cat /proc/sys/kernel/hostname) with $(cat /srv/note)"'
ExecStart=/bin/systemctl --no-block poweroff
"""


def test_a_changed_guest_comes_up_with_the_change(
    image: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = tmp_path / "guest.qcow2"
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    subprocess.run([*make, "-b", image("debian-plain"), disk], check=True)
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
    serial = tmp_path / "serial"
    subprocess.run(
        ["qemu-system-x86_64", "-M", "q35,accel=tcg", "-cpu", "max", "-m", "1024", "-smp", "2",
         "-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{serial}",
         "-drive", f"file={disk},format=qcow2,if=virtio"],
        check=True, timeout=500,
    )  # fmt: skip
    assert b"came up as changed with the change" in serial.read_bytes()
    # A guest that shut down cleanly: the direct engine reads it, and finds the journal's boot.
    found = imgtools("cat", "--engine", "direct", "-a", disk, "/etc/hostname", "/srv/note")
    assert found.stdout == b"changed\nthe change\n"
