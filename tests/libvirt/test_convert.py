"""``imgtools convert -d``: the disks of a domain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import make_disk, qemu_img, same
from tests.libvirt.conftest import Define, virsh

pytestmark = pytest.mark.libvirt


def test_a_domain_into_a_folder(define: Define, libvirtd: str, tmp_path: Path) -> None:
    disk = tmp_path / "root.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", make_disk(tmp_path), disk)
    domain = define("imgtools-convert", disk)
    copies = tmp_path / "copies"
    words = ["convert", "--connect", libvirtd, "-O", "vdi", "-d", domain.name]
    done = imgtools(*words, copies)
    assert done.code == 2
    assert "is no folder" in done.stderr
    copies.mkdir()
    done = imgtools(*words, copies, "--json")
    assert done.code == 0, done.stderr
    (row,) = json.loads(done.stdout)["result"]
    assert row["target"] == str(copies / "root.vdi")
    assert same(disk, "qcow2", copies / "root.vdi", "vdi")
    domain.start_paused()
    done = imgtools(*words, copies, "--force")
    assert done.code == 8
    assert f"domain {domain.name} is running" in done.stderr
    # libvirt's books, too, keep an image from being replaced; so do its locks.
    done = imgtools("convert", "--force", "-O", "qcow2", copies / "root.vdi", disk)
    assert done.code == 8
    virsh("destroy", domain.name)
    assert same(disk, "qcow2", copies / "root.vdi", "vdi")
