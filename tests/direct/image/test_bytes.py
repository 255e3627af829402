"""``imgtools image read`` and ``write``: ranges of the guest's disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import leftovers, loop_device, run, tmpfs
from tests.direct.image.killing import finish, killed, records

pytestmark = pytest.mark.direct

MIB = 1 << 20
FORMATS = ["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.img"
    path.write_bytes(os.urandom(3 * MIB) + bytes(2 * MIB) + os.urandom(MIB))
    return path


def made(plain: Path, kind: str) -> Path:
    target = plain.with_name(f"a,b=c.{kind}")
    run("qemu-img", "convert", "-f", "raw", "-O", kind, plain, target)
    return target


def whole(image: Path, kind: str) -> bytes:
    flat = image.with_name("flat")
    run("qemu-img", "convert", "-f", kind, "-O", "raw", image, flat)
    return flat.read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_read_and_nothing_else_changes(plain: Path, kind: str) -> None:
    image, expected = made(plain, kind), bytearray(plain.read_bytes())
    size = len(whole(image, kind))
    expected.extend(bytes(size - len(expected)))
    for offset, length in ((0, 512), (1000, 3), (3 * MIB - 7, 2 * MIB + 1), (size - 1, 1)):
        data = os.urandom(length - 1) + b"\0"
        done = imgtools("image", "write", "--from", "-", image, str(offset), stdin=data)
        assert done.code == 0, done.stderr
        expected[offset : offset + length] = data
        got = imgtools("image", "read", image, str(offset), str(length))
        assert (got.code, got.stdout) == (0, data)
    assert whole(image, kind)[: len(expected)] == bytes(expected)
    assert not leftovers(image.parent)


def test_an_overlay_is_written_and_its_backing_file_is_not(plain: Path, tmp_path: Path) -> None:
    before = plain.read_bytes()
    top = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", plain, "-F", "raw", top)
    (tmp_path / "new").write_bytes(b"new")
    words = ["write", "--json", "--format", "qcow2", "--from", tmp_path / "new", top, "1M"]
    document = json.loads(imgtools("image", *words).stdout)
    assert document["schema"] == "imgtools/image-write"
    assert document["result"]["committed"] is True
    assert whole(top, "qcow2") == before[:MIB] + b"new" + before[MIB + 3 :]
    assert plain.read_bytes() == before
    assert imgtools("image", "write", "--from", "-", "--format", "raw", plain, "0").code == 8
    out = tmp_path / "out"
    assert imgtools("image", "read", "-o", out, top, "1M", "2M").code == 0
    assert out.read_bytes() == (b"new" + before[MIB + 3 :])[: 2 * MIB]
    assert imgtools("image", "read", "-o", out, top, "0", "1").code == 8
    assert imgtools("image", "read", "--force", "-o", top, top, "0", "1").code == 8
    assert imgtools("image", "read", "--force", "-o", out, top, "0", "1").code == 0
    assert out.read_bytes() == before[:1]


def test_bad_ranges(plain: Path) -> None:
    image = made(plain, "qcow2")
    before = image.read_bytes()
    for words, code in (
        (["read", image, "6M", "1"], 2),
        (["read", image, "0", "0"], 2),
        (["read", image, "-1", "1"], 2),
        (["read", image, "7E", "7E"], 2),
        (["read", "--json", image, "0", "1"], 2),
        (["read", "none", "0", "1"], 4),
        (["read", "-o", "/nonexistent/x", image, "0", "1"], 4),
        (["write", image, "0"], 2),
        (["write", "--from", "/nonexistent", image, "0"], 2),
        (["write", "--from", "-", image, "6291455"], 2),
        (["write", "--from", "-", image, "1E"], 2),
        (["write", "-n", "--from", "-", image, "0"], 0),
    ):
        done = imgtools("image", *words, stdin=b"xy")
        assert done.code == code, (words, done.stderr)
        assert done.stderr.count("\n") <= 1
    assert image.read_bytes() == before
    assert not leftovers(image.parent)


def test_devices_and_full_disks(plain: Path, tmp_path: Path) -> None:
    with loop_device(plain) as device:
        assert imgtools("image", "write", "--from", "-", device, "5", stdin=b"new").code == 8
        words = ["write", "--workdir", tmp_path, "--from", "-", device, "5"]
        assert imgtools("image", *words, stdin=b"new").code == 0
        assert imgtools("image", "read", device, "5", "3").stdout == b"new"
    assert plain.read_bytes()[5:8] == b"new"
    with tmpfs(tmp_path / "small", "80m") as folder:
        image = folder / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", image, "1G")
        before = image.read_bytes()
        words = ["write", "--from", "-", image, "0"]
        done = imgtools("image", *words, stdin=os.urandom(90 * MIB))
        assert done.code != 0
        assert image.read_bytes() == before
        assert not leftovers(folder)
        out = folder / "out"
        assert imgtools("image", "read", "-o", out, image, "0", "200M").code == 1
        assert not out.exists()


def test_killed_anywhere_all_of_it_is_there_or_nothing(plain: Path, tmp_path: Path) -> None:
    image, copy = made(plain, "qcow2"), tmp_path / "copy"
    shutil.copyfile(image, copy)
    before = plain.read_bytes()
    data = os.urandom(MIB)
    (tmp_path / "data").write_bytes(data)
    after = before[: 2 * MIB] + data + before[3 * MIB :]
    seen = set()
    # info, create, convert, check, commit
    for at, when in ((2, "after"), (3, "during"), (4, "after"), (5, "before"), (5, "during")):
        shutil.copyfile(copy, image)
        words = ["write", "--from", tmp_path / "data", image, "2M"]
        assert killed(tmp_path, at, when, *words) == -9, (at, when)
        texts = [(tmp_path / name).read_text() for name in records(tmp_path)]
        committing = any('"committing"' in text for text in texts)
        seen.add(committing)
        finish(image)
        assert whole(image, "qcow2") == (after if committing else before), (at, when)
    assert seen == {True, False}
