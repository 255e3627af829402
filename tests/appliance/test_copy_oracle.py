"""tar-out and copy-out against virt-tar-out and virt-copy-out, and on both engines."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import guestfs

pytestmark = pytest.mark.appliance
Image = Callable[[str], Path]

# virt-tar-out and virt-copy-out are one call each of the library.
TAR_OUT = """
import guestfs, sys
g = guestfs.GuestFS(python_return_dict=True)
g.add_drive_ro(sys.argv[1])
g.launch()
g.mount_ro("/dev/sda", "/")
g.tar_out("/data", "/dev/stdout")
"""
COPY_OUT = """
import guestfs, os, subprocess, sys, tempfile
g = guestfs.GuestFS(python_return_dict=True)
g.add_drive_ro(sys.argv[1])
g.launch()
g.mount_ro("/dev/sda", "/")
with tempfile.TemporaryDirectory() as folder:
    g.copy_out("/data", folder)
    subprocess.run(["tar", "-C", folder, "--format=pax", "-cf", "-", "./data"], check=True)
"""


def contents(data: bytes) -> dict[str, tuple[object, ...]]:
    """What an archive says of every member; of files a hash of the content."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        for one in tar:
            stream = tar.extractfile(one) if one.isfile() else None
            digest = hashlib.sha256(stream.read()).hexdigest() if stream else ""
            device = (one.devmajor, one.devminor) if one.isdev() else ()
            found[one.name] = (
                *(one.type, one.mode, one.uid, one.gid, int(one.mtime), one.size, one.linkname),
                *(digest, device),
            )
    return found


def without_links(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Which of several names comes first is the order of the folder."""
    return {name: what for name, what in found.items() if not name.startswith("./hard/")}


@pytest.mark.parametrize("engine", ["direct", "appliance"])
def test_virt_tar_out_packs_the_same(engine: str, image: Image) -> None:
    disk = image("ext4")
    expected = contents(guestfs(TAR_OUT, disk))
    done = imgtools("tar-out", "--engine", engine, "-a", disk, "/data", "-")
    assert (done.code, done.stderr) == (0, "")
    found = contents(done.stdout)
    assert without_links(found) == without_links(expected)
    assert found.keys() == expected.keys()


def test_both_engines_give_the_same_bytes(image: Image) -> None:
    words = ("tar-out", "-a", image("debian-lvm"), "/etc", "-", "--xattrs", "--acls", "--selinux")
    direct = imgtools(*words, "--engine", "direct")
    assert (direct.code, direct.stderr) == (0, "")
    assert direct.stdout == imgtools(*words, "--engine", "appliance").stdout


def test_virt_copy_out_copies_the_same(image: Image, tmp_path: Path) -> None:
    disk = image("ext4")
    expected = contents(guestfs(COPY_OUT, disk))
    assert imgtools("copy-out", "-a", disk, "/data", tmp_path).code == 0
    packed = subprocess.run(
        ["tar", "-C", tmp_path, "--format=pax", "-cf", "-", "./data"],
        check=True,
        capture_output=True,
    )
    found = contents(packed.stdout)
    assert found.keys() == expected.keys()
    for name, what in expected.items():
        if "/hard/" not in name:
            assert found[name] == what, name


def test_an_unclean_guest_is_copied_by_the_appliance(image: Image, tmp_path: Path) -> None:
    done = imgtools("copy-out", "-v", "-a", image("ext4-unclean"), "/etc/hostname", tmp_path)
    assert done.code == 0
    assert "engine appliance" in done.stderr
    read = imgtools("cat", "-a", image("ext4-unclean"), "/etc/hostname")
    assert (tmp_path / "hostname").read_bytes() == read.stdout
