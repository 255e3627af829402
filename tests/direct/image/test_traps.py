"""Traps of qemu-img that no other test of a verb shows; docs/images.md lists the tests of all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import SIZE, digest, leftovers, make_disk, qemu_img, tmpfs

pytestmark = pytest.mark.direct


def test_trap_6_a_raw_disk_is_resized_as_raw_whatever_it_begins_with(tmp_path: Path) -> None:
    """qemu-img would take it for the qcow2 that its guest has written, and resize that."""
    disk = tmp_path / "guest.raw"
    qemu_img("create", "-q", "-f", "qcow2", disk, "64M")
    os.truncate(disk, 8 << 20)
    head = disk.read_bytes()
    done = imgtools("image", "resize", "--json", disk, "+8M")
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)["result"]
    assert (found["format"], found["old_size"], found["new_size"]) == ("raw", 8 << 20, 16 << 20)
    assert disk.stat().st_size == 16 << 20
    assert disk.read_bytes()[: len(head)] == head


def test_trap_6_the_first_sector_of_a_raw_disk_can_be_written(tmp_path: Path) -> None:
    """Without -f raw qemu refuses some writes to sector 0, and warns of it."""
    disk = make_disk(tmp_path)
    boot = b"\xeb\x63\x90".ljust(510, b"\x90") + b"\x55\xaa"
    done = imgtools("image", "write", "--from", "-", disk, "0", stdin=boot)
    assert (done.code, done.stderr) == (0, "")
    assert disk.read_bytes()[:512] == boot
    assert disk.stat().st_size == SIZE


def test_trap_13_a_few_bytes_that_declare_terabytes(tmp_path: Path) -> None:
    """The tables alone of some formats would fill the disk; so would all of the zeros."""
    upload = tmp_path / "upload.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", upload, "8T")
    before = digest(upload)
    with tmpfs(tmp_path / "small", "24m") as folder:
        for words in (["vdi"], ["parallels"], ["vpc"], ["raw", "-S", "0"], ["qcow2", "-S", "0"]):
            done = imgtools("convert", "-O", *words, upload, folder / "copy")
            assert done.code in (2, 8), (words, done.stderr)
            assert done.stderr.count("\n") == 1
            assert words == ["vpc"] or "are free" in done.stderr, done.stderr
            assert list(folder.iterdir()) == []
    done = imgtools("image", "measure", "--json", "-O", "qcow2", upload)
    found = json.loads(done.stdout)["result"]
    assert found["required"] < 2 << 30 < 8 << 40 < found["fully_allocated"]
    assert digest(upload) == before
    assert not leftovers(tmp_path)
