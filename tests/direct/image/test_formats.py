"""Formats that qemu only reads (bochs, cloop, dmg, a folder as vvfat, nbd) as sources."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.readonly import BZIP2, bochs, cloop, dmg
from tests.cli import imgtools
from tests.direct.image.disks import SIZE, content, digest, qemu_img, same

pytestmark = pytest.mark.direct

BLOCK = 65536


@pytest.fixture(scope="module")
def images(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The disk in each format, by our own writers; a cloop ends at a whole block."""
    whole = disk.read_bytes()
    made = {
        "bochs": bochs(whole),
        "bochs1": bochs(whole, version=1),
        "cloop": cloop(whole),
        "dmg": dmg(whole),
        "dmg-fork": dmg(whole, fork=True),
    }
    folder = tmp_path_factory.mktemp("images")
    paths = {}
    for name, data in made.items():
        paths[name] = folder / f"{name}.{_format(name)}"
        paths[name].write_bytes(data)
    return paths


def _format(name: str) -> str:
    return name.split("-", maxsplit=1)[0].rstrip("1")


def _content(disk: Path, name: str) -> bytes:
    whole = disk.read_bytes()
    return whole.ljust(-(-SIZE // BLOCK) * BLOCK, b"\0") if name == "cloop" else whole


@pytest.mark.parametrize("name", ["bochs", "bochs1", "cloop", "dmg", "dmg-fork"])
def test_what_qemu_only_reads_is_converted(
    name: str, images: dict[str, Path], disk: Path, tmp_path: Path
) -> None:
    image, kind = images[name], _format(name)
    before = digest(image)
    target = tmp_path / "copy"
    for words in ([], ["-f", kind], ["--untrusted"]):
        done = imgtools("convert", *words, "-O", "raw", "--force", "--verify", image, target)
        assert (done.code, done.stderr) == (0, "")
        assert target.read_bytes() == _content(disk, name)
        assert digest(target) == content(image, kind)
    done = imgtools("convert", "--json", "-O", "qcow2", image, tmp_path / "copy.qcow2")
    (row,) = json.loads(done.stdout)["result"]
    assert (row["source_format"], row["virtual_size"]) == (kind, len(_content(disk, name)))
    assert same(tmp_path / "copy.qcow2", "qcow2", image, kind)
    assert digest(image) == before


@pytest.mark.parametrize("name", ["bochs", "cloop", "dmg"])
def test_the_other_verbs_take_them(
    name: str, images: dict[str, Path], disk: Path, tmp_path: Path
) -> None:
    image = images[name]
    done = imgtools("info", "--json", image)
    (layer,) = json.loads(done.stdout)["result"][0]["layers"]
    assert (layer["format"], layer["virtual_size"]) == (name, len(_content(disk, name)))
    assert layer["qemu"]["virtual_size"] == layer["virtual_size"]
    assert imgtools("image", "compare", image, "-F", "raw", disk).code == 0
    other = tmp_path / "other.img"
    other.write_bytes(b"!" + disk.read_bytes()[1:])
    assert imgtools("image", "compare", image, "-F", "raw", other).code == 10
    theirs = json.loads(qemu_img("map", "--output=json", "-f", name, image))
    done = imgtools("image", "map", "--json", image)
    assert json.loads(done.stdout)["result"]["extents"] == theirs
    theirs = json.loads(qemu_img("measure", "--output=json", "-O", "qcow2", "-f", name, image))
    done = imgtools("image", "measure", "--json", "-O", "qcow2", image)
    assert json.loads(done.stdout)["result"]["required"] == theirs["required"]
    done = imgtools("image", "read", "-f", name, image, str(SIZE - 600), "600")
    assert done.stdout == disk.read_bytes()[-600:]


@pytest.mark.parametrize("name", ["bochs", "cloop", "dmg"])
def test_they_are_never_written(name: str, images: dict[str, Path], tmp_path: Path) -> None:
    before = digest(images[name])
    lines = [
        ("convert", "-O", name, images[name], tmp_path / "no"),
        ("image", "create", "-f", name, tmp_path / "no", "1M"),
        ("image", "resize", images[name], "64M"),
        ("image", "write", "--from", "/dev/null", images[name], "0"),
        ("image", "amend", "-o", "compat=1.1", images[name]),
        ("image", "snapshot", "create", images[name], "x"),
    ]
    for words in lines:
        done = imgtools(*words)
        assert done.code in (2, 4, 8), words
        assert done.stderr.count("\n") == 1, done.stderr
    for words in lines[:2]:
        assert "it can write raw, qcow2, qcow, vmdk" in imgtools(*words).stderr
    assert digest(images[name]) == before
    assert not (tmp_path / "no").exists()


def test_compression_that_this_qemu_lacks(disk: Path, tmp_path: Path) -> None:
    """Where it has bzip2 as a module the copy must be right, and else the error clear."""
    image = tmp_path / "packed.dmg"
    image.write_bytes(dmg(disk.read_bytes(), kinds=(BZIP2,)))
    theirs = subprocess.run(
        ["qemu-img", "convert", "-f", "dmg", "-O", "raw", image, tmp_path / "theirs"],
        capture_output=True,
        check=False,
    )
    done = imgtools("convert", "-O", "raw", image, tmp_path / "copy")
    if theirs.returncode == 0:
        assert (tmp_path / "copy").read_bytes() == disk.read_bytes()
        return
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    assert "is compressed by bzip2, which this qemu-img cannot read" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_stated_raw_image_stays_raw(images: dict[str, Path], tmp_path: Path) -> None:
    for name in ("bochs", "cloop", "dmg"):
        posing = tmp_path / f"{name}.raw"
        posing.write_bytes(images[name].read_bytes())
        target = tmp_path / f"{name}.copy"
        assert imgtools("convert", "-O", "raw", posing, target).code == 0
        size = posing.stat().st_size
        assert target.read_bytes()[:size] == posing.read_bytes()
    # The end of a disk says nothing without the name of a dmg.
    posing = tmp_path / "guest.img"
    posing.write_bytes(images["dmg"].read_bytes())
    found = json.loads(imgtools("info", "--json", posing).stdout)["result"][0]
    assert found["format"] == "raw"


# --- a folder as a FAT ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / os.fsdecode(b"my, f:older\xff")
    (path / "sub").mkdir(parents=True)
    (path / "note.txt").write_text("a note\n" * 1000)
    (path / "sub" / "data.bin").write_bytes(bytes(range(256)) * 400)
    return path


def test_a_folder_is_a_source(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    folder.rename(plain)
    forms = {"": "fat:", "fat:32:": "fat:32:", "12:floppy:": "fat:12:floppy:"}
    for ours, theirs in forms.items():
        target, expected = tmp_path / "ours", tmp_path / "theirs"
        done = imgtools("convert", "-f", "vvfat", "-O", "raw", "--force", f"{ours}{plain}", target)
        assert (done.code, done.stderr) == (0, "")
        qemu_img("convert", "-f", "raw", "-O", "raw", f"{theirs}{plain}", expected)
        assert digest(target) == digest(expected)
    # The last one is a FAT12 without a partition table.
    done = imgtools("cat", "--format", "raw", "-m", "/dev/sda", "-a", target, "/sub/data.bin")
    assert done.stdout == (plain / "sub" / "data.bin").read_bytes()
    assert imgtools("image", "compare", "-f", "vvfat", f"12:floppy:{plain}", target).code == 0
    (plain / "note.txt").write_text("another\n")
    assert imgtools("image", "compare", "-f", "vvfat", f"12:floppy:{plain}", target).code == 10


def test_a_folder_of_a_hard_name(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.qcow2"
    words = ["-f", "vvfat", "-O", "qcow2", "--verify", f"floppy:{folder}", target]
    done = imgtools("convert", *words)
    assert (done.code, done.stderr) == (0, "")
    done = imgtools("cat", "-m", "/dev/sda", "-a", target, "/note.txt")
    assert done.text == "a note\n" * 1000


def test_a_folder_shows_nothing_but_itself(folder: Path, tmp_path: Path) -> None:
    words = ["convert", "-f", "vvfat", "-O", "raw", f"floppy:{folder}", tmp_path / "no"]
    done = imgtools(*words, "--untrusted")
    assert (done.code, done.stderr.count("\n")) == (8, 1)
    link = folder / "sub" / "passwd"
    for target in ("/etc/passwd", "/etc", "missing"):
        link.symlink_to(target)
        done = imgtools(*words)
        assert (done.code in (4, 8), done.stderr.count("\n")) == (True, 1), done.stderr
        link.unlink()
    os.mkfifo(link)
    assert imgtools(*words).code == 8
    link.unlink()
    done = imgtools(*words[:-1], folder / "sub" / "copy")
    assert (done.code, "lies in the folder" in done.stderr) == (8, True)
    (folder / "big").write_bytes(bytes(4 << 20))
    done = imgtools(*words)
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    for bad in (tmp_path / "none", folder / "note.txt"):
        assert imgtools("convert", "-f", "vvfat", "-O", "raw", bad, tmp_path / "no").code == 4
    assert not (tmp_path / "no").exists()


# --- nbd ------------------------------------------------------------------------------------------


@contextmanager
def serving(image: Path, image_format: str, *where: str | Path) -> Iterator[None]:
    """A qemu-nbd that shows ``image``, read-only, as the export ``disk/1``."""
    pid = image.parent / "nbd.pid"
    argv = ["qemu-nbd", "-r", "-t", "-e", "4", "-x", "disk/1", "-f", image_format, *where]
    with subprocess.Popen([*argv, f"--pid-file={pid}", image]) as child:
        try:
            deadline = time.monotonic() + 10
            while not pid.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            child.terminate()
            child.wait()
            pid.unlink(missing_ok=True)


def test_an_export_of_nbd(disk: Path, tmp_path: Path) -> None:
    image, socket = tmp_path / "disk.qcow2", tmp_path / "a socket"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    uri = f"nbd+unix:///disk/1?socket={socket}".replace(" ", "%20")
    target = tmp_path / "copy"
    with serving(image, "qcow2", "-k", socket):
        for words in ([], ["-f", "nbd", "--untrusted"], ["-f", "raw"]):
            done = imgtools("convert", *words, "-O", "raw", "--force", "--verify", uri, target)
            assert (done.code, done.stderr) == (0, "")
            assert digest(target) == digest(disk)
        qemu_img("convert", "-f", "raw", "-O", "raw", uri, tmp_path / "theirs")
        assert digest(tmp_path / "theirs") == digest(target)
        assert imgtools("image", "compare", uri, "-F", "raw", disk).code == 0
        done = imgtools("image", "map", "--json", uri)
        assert sum(one["length"] for one in json.loads(done.stdout)["result"]["extents"]) == SIZE
        (tmp_path / "copies").mkdir()
        assert imgtools("convert", "-O", "vdi", uri, tmp_path / "copies/").code == 0
        assert same(tmp_path / "copies" / "1.vdi", "vdi", disk, "raw")
        assert imgtools("convert", "-O", "raw", disk, uri).code == 2
        done = imgtools("image", "read", uri, "0", "4096")
        assert done.stdout == disk.read_bytes()[:4096]
        done = imgtools("convert", "-O", "raw", uri.replace("disk/1", "other"), tmp_path / "no")
        assert (done.code, done.stderr.count("\n")) == (4, 1)
    done = imgtools("convert", "-O", "raw", uri, tmp_path / "no")
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    assert "other" not in done.stderr
    for bad in (
        ["nbd+unix:///disk"],
        ["nbd:///disk"],
        ["-f", "nbd", disk],
        ["-f", "nbd", "ssh://x/y"],
    ):
        assert imgtools("convert", "-O", "raw", *bad, tmp_path / "no").code == 2, bad
    assert not (tmp_path / "no").exists()


def test_an_export_whose_content_names_a_file_of_the_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret.img"
    secret.write_bytes(b"host secret ".ljust(BLOCK, b"!"))
    evil, socket = tmp_path / "evil", tmp_path / "socket"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", evil, "1M")
    uri = f"nbd+unix:///disk%2F1?socket={socket}"
    with serving(evil, "raw", "-k", socket):
        done = imgtools("convert", "-O", "raw", uri, tmp_path / "copy")
        assert done.code == 0
        assert b"host secret" not in (tmp_path / "copy").read_bytes()
        done = imgtools("convert", "-f", "qcow2", "-O", "raw", uri, tmp_path / "no")
        assert (done.code, done.stderr.count("\n")) == (8, 1)
    assert not (tmp_path / "no").exists()
