"""Where ``imgtools convert`` writes: files that exist, links, full disks, block devices."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import (
    FORMATS,
    HARD,
    SIZE,
    digest,
    leftovers,
    qemu_img,
    same,
    tmpfs,
    writer,
)

pytestmark = pytest.mark.direct


def test_a_target_that_exists_or_is_in_use(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", target, "1M")
    before = digest(target)
    done = imgtools("convert", "-O", "raw", qcow2, target)
    assert (done.code, digest(target)) == (8, before)
    with writer(target, "qcow2"):
        done = imgtools("convert", "--force", "-O", "raw", qcow2, target)
    assert (done.code, digest(target)) == (8, before)
    assert imgtools("convert", "--force", "-O", "raw", qcow2, target).code == 0
    assert digest(target) == digest(disk)
    assert not leftovers(tmp_path)


def test_the_file_behind_a_link_is_replaced(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    """As qemu-img would write through it: the link leads to the disk with the space."""
    other, folder = tmp_path / "other", tmp_path / "images"
    other.mkdir()
    folder.mkdir()
    real, link = other / "real.img", folder / "link.img"
    real.write_bytes(b"older".ljust(4096))
    link.symlink_to("../other/real.img")
    words: list[str | Path] = ["convert", "-O", "raw", qcow2, link]
    refused = imgtools(*words)
    assert refused.code == 8
    assert "exists already" in refused.stderr
    assert real.read_bytes() == b"older".ljust(4096)
    assert imgtools(*words, "--force").code == 0
    assert link.is_symlink()
    assert digest(real) == digest(disk)
    # What rests on the real file counts as well, wherever it lies.
    for place in (folder, other):
        overlay = place / "overlay.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-b", real, "-F", "raw", overlay)
        refused = imgtools(*words, "--force")
        assert refused.code == 8
        assert "rests on it" in refused.stderr
        overlay.unlink()
    real.unlink()  # the link leads nowhere yet
    assert imgtools(*words).code == 8
    assert imgtools(*words, "--force").code == 0
    assert digest(real) == digest(disk)
    link.unlink()
    link.symlink_to("link.img")
    refused = imgtools(*words, "--force")
    assert (refused.code, refused.stderr.count("\n")) == (8, 1)
    assert not leftovers(folder) + leftovers(other)


def test_a_full_disk(sources: dict[str, Path], tmp_path: Path) -> None:
    with tmpfs(tmp_path / "tiny", "1m") as folder:
        for name in ("qcow2", "vdi"):  # measured exactly, and from below
            done = imgtools("convert", "-O", name, sources["raw"], folder / "x")
            assert (done.code, done.stderr.count("\n")) == (8, 1)
            assert "are free" in done.stderr
        # A compressed copy cannot be measured before: it fails half-way.
        done = imgtools("convert", "-c", "-O", "qcow2", sources["raw"], folder / "x")
        assert (done.code, done.stderr.count("\n")) == (8, 1)
        assert "No space left on device" in done.stderr
        assert list(folder.iterdir()) == []


def test_a_sparse_disk_that_is_larger_than_the_target_disk(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", sparse, "2G")
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1G 1M", sparse]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    with tmpfs(tmp_path / "small", "24m") as folder:
        for name in set(FORMATS) - {"qcow"}:  # which qemu-img compare reads for seconds
            target = folder / f"x.{name}"
            done = imgtools("convert", "-O", name, sparse, target)
            if name == "parallels":  # which takes 128 MiB ahead
                assert (done.code, target.exists()) == (8, False)
                continue
            assert (done.code, done.stderr) == (0, ""), name
            assert same(sparse, "qcow2", target, name)
            target.unlink()
        for words in (["-S", "0"], ["-o", "preallocation=full"]):
            done = imgtools("convert", *words, "-O", "raw", sparse, folder / "x.raw")
            assert done.code == 8
            assert "are free" in done.stderr
    # More than a file of ext4 can hold; other file systems may take it.
    qemu_img("create", "-q", "-f", "qcow2", sparse, str(1 << 45))
    done = imgtools("convert", "-O", "raw", sparse, tmp_path / "no")
    assert (done.code, done.stderr.count("\n")) == (8, 1)
    assert not (tmp_path / "no").exists()
    assert not leftovers(tmp_path)


def test_a_device_file_is_never_replaced(qcow2: Path, tmp_path: Path) -> None:
    null = tmp_path / "null"
    subprocess.run(["mknod", null, "c", "1", "3"], check=True)
    done = imgtools("convert", "--force", "-O", "raw", qcow2, null)
    assert done.code == 8
    assert null.is_char_device()


def test_a_target_that_cannot_be_written(qcow2: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "1m", "ro") as folder:
        done = imgtools("convert", "-O", "raw", qcow2, folder / "x")
    assert (done.code, done.stderr.count("\n")) == (8, 1)
    assert imgtools("convert", "-O", "raw", qcow2, tmp_path / "none" / "x").code == 4


def test_onto_a_file_that_exists(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    target.write_bytes(b"\xaa" * (16 << 20))
    words = ["convert", "-n", "-O", "raw", qcow2, target]
    assert imgtools(*words).code == 8
    done = imgtools(*words, "--force", "--target-is-zero")
    assert done.code == 8
    assert target.read_bytes() == b"\xaa" * (16 << 20)
    done = imgtools(*words, "--force", "--verify")
    assert done.code == 0, done.stderr
    assert "behind the copy" in done.stderr
    assert target.read_bytes()[:SIZE] == disk.read_bytes()
    assert set(target.read_bytes()[SIZE:]) == {0xAA}
    with target.open("wb") as stream:
        stream.truncate(16 << 20)
    inode = target.stat().st_ino
    done = imgtools(*words, "--force", "--target-is-zero", "--json")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning["code"] == "image.target-longer"
    assert target.read_bytes()[:SIZE] == disk.read_bytes()
    assert target.stat().st_ino == inode
    small = tmp_path / "small.img"
    small.write_bytes(bytes(1 << 20))
    assert imgtools("convert", "-n", "--force", "-O", "raw", qcow2, small).code == 8
    with writer(target, "raw"):
        assert imgtools(*words, "--force").code == 8
    hard = tmp_path / HARD
    qemu_img("create", "-q", "-f", "qcow2", hard, str(SIZE))
    done = imgtools("convert", "-n", "--force", "-O", "qcow2", "--verify", disk, hard)
    assert (done.code, done.stderr) == (0, "")
    assert same(hard, "qcow2", disk, "raw")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (14 << 20))
    words = ["losetup", "--find", "--show", backing]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def test_onto_a_block_device(qcow2: Path, disk: Path, device: Path, tmp_path: Path) -> None:
    assert imgtools("convert", "-O", "raw", qcow2, device).code == 8
    assert imgtools("convert", "--force", "-O", "vdi", qcow2, device).code == 2
    done = imgtools("convert", "--force", "-O", "raw", qcow2, device)
    assert done.code == 0, done.stderr
    assert (tmp_path / "backing").read_bytes()[:SIZE] == disk.read_bytes()
    assert imgtools("convert", "-f", "raw", "-O", "raw", device, tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes()[:SIZE] == disk.read_bytes()
    big = tmp_path / "big.img"
    with big.open("wb") as stream:
        stream.truncate(15 << 20)
    assert imgtools("convert", "--force", "-f", "raw", "-O", "raw", big, device).code == 8
