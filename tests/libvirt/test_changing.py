"""Changing a domain's disks: refused while it runs, kept from starting while we work."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.libvirt.conftest import URI, Define, virsh

pytestmark = [pytest.mark.libvirt, pytest.mark.appliance]

Image = Callable[[str], Path]
Overlay = Callable[[Path], Path]


def test_a_running_domain_is_refused_by_name_and_by_image(
    image: Image, overlay: Overlay, define: Define, libvirtd: str
) -> None:
    disk = overlay(image("debian-lvm"))
    domain = define("imgtools-change-running", disk)
    domain.start_paused()
    for words in (("-c", libvirtd, "-d", domain.name), ("-a", str(disk))):
        done = imgtools("write", *words, "/etc/motd", "--content", "x")
        assert done.code == 8
        assert domain.name in done.stderr
        assert "virsh shutdown" in done.stderr
    # Its base is in use as well: libvirt does not list it, qemu's locks tell.
    done = imgtools("write", "-a", image("debian-lvm"), "/etc/motd", "--content", "x")
    assert done.code == 8
    assert "backing file" in done.stderr
    virsh("destroy", domain.name)
    assert imgtools("write", "-c", libvirtd, domain.name, "/etc/motd", "--content", "x").code == 0
    assert imgtools("cat", "-a", disk, "/etc/motd").stdout == b"x\n"


def test_a_saved_domain_is_refused(
    image: Image, overlay: Overlay, define: Define, libvirtd: str
) -> None:
    disk = overlay(image("debian-lvm"))
    domain = define("imgtools-change-saved", disk)
    domain.start_paused()
    virsh("managedsave", domain.name)
    try:
        done = imgtools("write", "-c", libvirtd, "-d", domain.name, "/etc/motd", "--content", "x")
        assert done.code == 8
        assert "managedsave-remove" in done.stderr
    finally:
        virsh("managedsave-remove", domain.name)


def test_libvirt_cannot_start_what_we_change(
    image: Image, overlay: Overlay, define: Define, libvirtd: str, tmp_path: Path
) -> None:
    disk = overlay(image("debian-lvm"))
    domain = define("imgtools-change-start", disk)
    script = tmp_path / "editor"
    script.write_text(
        f"#!/bin/sh\n: >{tmp_path}/open\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n"
        'echo edited >"$1"\n'
    )
    script.chmod(0o755)
    with subprocess.Popen(
        [PROGRAM, "edit", "-c", URI, "-d", domain.name, "/etc/motd"],
        env={**os.environ, "EDITOR": str(script), "VISUAL": ""},
        stdin=subprocess.DEVNULL,
    ) as child:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "open").exists():
                assert time.monotonic() < deadline
                assert child.poll() is None
                time.sleep(0.05)
            start = ["virsh", "-c", URI, "start", domain.name]
            started = subprocess.run(start, capture_output=True, text=True, check=False)
        finally:
            (tmp_path / "go").touch()
            child.wait(120)
    assert started.returncode != 0
    assert "lock" in started.stderr
    assert child.returncode == 0
    assert imgtools("cat", "-a", disk, "/etc/motd").stdout == b"edited\n"
    domain.start_paused()  # and now it can
