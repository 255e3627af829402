"""``imgtools convert`` against qemu-img: what a copy holds, and what never happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from imgtools.errors import ImageError
from imgtools.image.job import silent
from imgtools.image.options import options_of
from imgtools.image.same import refuse_difference
from imgtools.image.secret import Secrets
from imgtools.image.target import WRITABLE
from imgtools.nodes import file_node
from tests.cli import PROGRAM, imgtools
from tests.direct.image.disks import (
    FORMATS,
    HARD,
    SIZE,
    content,
    digest,
    info,
    leftovers,
    qemu_img,
    same,
    writer,
)

pytestmark = pytest.mark.direct


@pytest.mark.parametrize("target_format", FORMATS)
def test_every_format_becomes_every_other(
    target_format: str, sources: dict[str, Path], disk: Path, tmp_path: Path
) -> None:
    """All sources in one run: the process's start would be most of the time.  LUKS is below."""
    expected = digest(disk)
    before = {name: digest(path) for name, path in sources.items()}
    folder = tmp_path / "copies"
    folder.mkdir()
    done = imgtools("convert", "-O", target_format, *sources.values(), folder)
    assert (done.code, done.stderr) == (0, "")
    made = {path.stem: path for path in folder.iterdir()}
    assert set(made) == set(sources)
    for name, target in made.items():
        assert same(sources[name], name, target, target_format), name
        assert content(target, target_format) == expected, name
        assert info(target, target_format)["virtual-size"] == SIZE
    assert {name: digest(path) for name, path in sources.items()} == before


def test_luks_becomes_every_format_and_every_format_luks(
    sources: dict[str, Path], disk: Path, tmp_path: Path
) -> None:
    """Onto a container that is there: to make one takes seconds, in which qemu times its keys."""
    key, locked = tmp_path / "key", tmp_path / "locked.luks"
    key.write_text("secret")
    words = ["-o", "iter-time=10", "--target-key-file", key]
    done = imgtools("convert", "-O", "luks", *words, disk, locked)
    assert (done.code, done.stderr) == (0, "")
    header = locked.read_bytes()[:-SIZE]
    opened = f"driver=luks,key-secret=s,file.filename={locked}"
    secret = ["--object", "secret,id=s,data=secret", "--image-opts"]
    expected = digest(disk)
    for name in FORMATS:
        target = tmp_path / f"copy.{name}"
        words = ["-O", name, "--source-key-file", key]
        done = imgtools("convert", *words, locked, target)
        assert (done.code, done.stderr) == (0, ""), name
        assert same(target, name, disk, "raw"), name
        locked.write_bytes(header + bytes(SIZE))  # which no key decrypts to the disk
        words = ["-n", "--force", "-O", "luks", "--target-key-file", key]
        done = imgtools("convert", *words, sources[name], locked)
        assert (done.code, done.stderr) == (0, ""), name
        qemu_img("convert", *secret, "-O", "raw", opened, tmp_path / "back")
        assert digest(tmp_path / "back") == expected, name


@pytest.mark.parametrize(
    ("target_format", "options"),
    [
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vpc", "subformat=fixed"),
        ("vdi", "static=on"),
        ("qcow2", "cluster_size=4k,compat=0.10"),
        ("qcow2", "extended_l2=on,cluster_size=128k"),
        ("raw", "preallocation=full"),
    ],
)
def test_hard_names_options_and_verify(
    target_format: str, options: str, qcow2: Path, tmp_path: Path
) -> None:
    folder = tmp_path / HARD
    folder.mkdir()
    source = folder / f"{HARD}.qcow2"
    qcow2.rename(source)
    target = folder / f"{HARD}2"
    if "Flat" in options:
        target = folder / "disk.vmdk"  # a descriptor cannot hold such a name
    words = ["-O", target_format, "-o", options, "--verify"]
    done = imgtools("convert", "--json", *words, source, target)
    assert done.code == 0, done.stderr
    (row,) = json.loads(done.stdout)["result"]
    assert row["verified"] is True
    assert row["virtual_size"] == SIZE
    assert row["error"] is None
    assert same(source, "qcow2", target, target_format)
    assert not leftovers(folder)
    again = imgtools("convert", "-f", target_format, "-O", "raw", target, folder / "raw.img")
    assert again.code == 0, again.stderr
    assert same(source, "qcow2", folder / "raw.img", "raw")


def test_a_difference_in_the_last_byte_is_found(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(disk.read_bytes()[:-1] + b"\0")
    nodes = [
        {"driver": "raw", "file": file_node(path, str), "read-only": True} for path in (disk, other)
    ]
    refuse_difference(nodes[0], nodes[0], "same", silent, keys=Secrets())
    with pytest.raises(ImageError, match="other: the copy differs"):
        refuse_difference(*nodes, "other", silent, keys=Secrets())


# Stands for failing storage: changes the copy when it is whole and about to be compared.
LYING = """#!/bin/bash
if [ "$1" = compare ]; then
    printf lie | dd of="$(echo "$FOLDER"/.*.imgtools-partial/*)" bs=1 seek=8388608 conv=notrunc \\
        status=none
fi
exec "$REAL" "$@"
"""


@pytest.mark.parametrize("older", [False, True])
def test_a_copy_that_differs_is_thrown_away(disk: Path, tmp_path: Path, older: bool) -> None:
    folder, shim = tmp_path / "copies", tmp_path / "bin" / "qemu-img"
    folder.mkdir()
    shim.parent.mkdir()
    shim.write_text(LYING)
    shim.chmod(0o755)
    target = folder / "copy.img"
    if older:
        target.write_bytes(b"older".ljust(4096))
    lying = {
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "REAL": shutil.which("qemu-img") or "",
        "FOLDER": str(folder),
    }
    words = ["convert", "-O", "raw", *(["--force"] if older else []), disk, target]
    done = imgtools(*words, "--verify", **lying)
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    assert "copy.img: the copy differs from its source (Content mismatch at" in done.stderr
    assert "dmesg" in done.stderr
    assert not leftovers(folder)
    assert (target.read_bytes() == b"older".ljust(4096)) if older else not target.exists()
    assert imgtools(*words, **lying).code == 0  # nobody looks
    assert imgtools(*words, "--force", "--verify").code == 0
    assert digest(target) == digest(disk)


def test_relative_names_that_look_like_protocols(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "nbd:x").symlink_to(disk)
    program = [PROGRAM, "convert"]
    words = ["-f", "raw", "-O", "raw", "nbd:x", "json:{}"]
    subprocess.run([*program, *words], cwd=tmp_path, check=True)
    assert digest(tmp_path / "json:{}") == digest(disk)


def test_compressed(qcow2: Path, tmp_path: Path) -> None:
    for name in ("qcow2", "vmdk"):
        target = tmp_path / f"small.{name}"
        done = imgtools("convert", "-c", "-O", name, "--verify", qcow2, target)
        assert done.code == 0, done.stderr
        assert same(qcow2, "qcow2", target, name)
        assert target.stat().st_size < qcow2.stat().st_size
    for name in ("raw", "qcow", "vdi", "vhdx"):
        done = imgtools("convert", "-c", "-O", name, qcow2, tmp_path / "no")
        assert done.code == 2
        assert "cannot be compressed" in done.stderr
    assert not (tmp_path / "no").exists()


def test_a_chain_becomes_one_image(qcow2: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", qcow2.name, "-F", "qcow2", overlay)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 1M 64k", overlay]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    assert imgtools("convert", "-O", "qcow2", overlay, tmp_path / "flat.qcow2").code == 0
    assert same(overlay, "qcow2", tmp_path / "flat.qcow2", "qcow2")
    assert "backing-filename" not in info(tmp_path / "flat.qcow2", "qcow2")
    # Neither a layer below nor an image on which others rest is ever the target.
    for target in (overlay, qcow2):
        before = digest(target)
        done = imgtools("convert", "--force", "-O", "qcow2", overlay, target)
        assert (done.code, done.stderr.count("\n")) == (8, 1)
        assert digest(target) == before
    done = imgtools("convert", "--force", "-O", "qcow2", tmp_path / "flat.qcow2", qcow2)
    assert done.code == 8
    assert "rests on it" in done.stderr


def test_a_raw_disk_that_poses_as_qcow2_shows_no_file_of_the_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret.img"
    secret.write_bytes(b"host secret ".ljust(65536, b"!"))
    evil = tmp_path / "evil.raw"
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", evil, "1M")
    for words in ([], ["-f", "raw"]):
        target = tmp_path / f"copy{len(words)}.img"
        done = imgtools("convert", *words, "-O", "raw", evil, target)
        assert done.code == 0
        assert "begins like a qcow2 image" in done.stderr
        assert target.read_bytes()[: evil.stat().st_size] == evil.read_bytes()
        assert b"host secret" not in target.read_bytes()
    # What says of itself that it is qcow2 may not name what is no image.
    named = tmp_path / "evil.qcow2"
    evil.rename(named)
    (tmp_path / "passwd").write_text("root:x:0:0\n" * 100)
    qemu_img("rebase", "-u", "-b", tmp_path / "passwd", "-F", "raw", "-f", "qcow2", named)
    done = imgtools("convert", "-O", "raw", named, tmp_path / "out.img")
    assert done.code == 8
    assert not (tmp_path / "out.img").exists()


def test_snapshots(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    qemu_img("snapshot", "-c", "be,fo=re", qcow2)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 0x33 0 1M", qcow2]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    forms = ["be,fo=re", "snapshot.id=1,snapshot.name=be,,fo=re"]
    for index, form in enumerate(forms):
        target = tmp_path / f"old{index}.img"
        done = imgtools("convert", "-l", form, "-O", "raw", qcow2, target)
        assert (done.code, done.stderr) == (0, "")
        assert digest(target) == digest(disk)
    done = imgtools("convert", "-l", "snapshot.name=1", "-O", "raw", qcow2, tmp_path / "no")
    assert done.code == 4
    assert "be,fo=re" in done.stderr
    # Dropping them is said; it is an error only on request.
    done = imgtools("convert", "--json", "-O", "qcow2", qcow2, tmp_path / "new.qcow2")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning["code"] == "image.snapshots-dropped"
    assert imgtools("convert", "--strict", "-O", "raw", qcow2, tmp_path / "new.img").code == 20


def test_a_snapshot_from_before_the_disk_grew(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    qemu_img("snapshot", "-c", "small", qcow2)
    qemu_img("resize", "-q", "-f", "qcow2", qcow2, "20M")
    for name in ("raw", "qcow2"):
        target = tmp_path / f"small.{name}"
        assert imgtools("convert", "-l", "small", "-O", name, qcow2, target).code == 0
        assert same(disk, "raw", target, name)
    done = imgtools("convert", "-l", "small", "-O", "vdi", qcow2, tmp_path / "no.vdi")
    assert done.code == 2
    assert not (tmp_path / "no.vdi").exists()


def test_bitmaps(qcow2: Path, tmp_path: Path) -> None:
    qemu_img("bitmap", "--add", "-f", "qcow2", qcow2, "since-monday")
    done = imgtools("convert", "--json", "-O", "qcow2", qcow2, tmp_path / "without.qcow2")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning["code"] == "image.bitmaps-dropped"
    done = imgtools("convert", "--bitmaps", "-O", "qcow2", qcow2, tmp_path / "with.qcow2")
    assert (done.code, done.stderr) == (0, "")
    found = info(tmp_path / "with.qcow2", "qcow2")["format-specific"]["data"]["bitmaps"]
    assert [one["name"] for one in found] == ["since-monday"]
    assert imgtools("convert", "--bitmaps", "-O", "raw", qcow2, tmp_path / "no").code == 2
    plain = tmp_path / "without.qcow2"
    assert imgtools("convert", "--bitmaps", "-O", "qcow2", plain, tmp_path / "no").code == 2


def test_encryption(qcow2: Path, disk: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a secret, with a comma\n")
    for name in ("qcow2", "luks"):
        quick = "encrypt.iter-time=10" if name == "qcow2" else "iter-time=10"
        locked = tmp_path / f"locked.{name}"
        # qemu-img times its key derivation: some seconds for each image.
        words = ["-O", name, "-o", quick, "--target-key-file", key]
        words += ["--verify"] if name == "qcow2" else []
        done = imgtools("convert", *words, qcow2, locked)
        assert (done.code, done.stderr) == (0, "")
        back = tmp_path / f"{name}.img"
        words = ["-f", name, "-O", "raw", "--source-key-file", "-"]
        done = imgtools("convert", *words, locked, back, stdin=key.read_bytes())
        assert done.code == 0, done.stderr
        assert digest(back) == digest(disk)
        done = imgtools("convert", *words, locked, tmp_path / "no", stdin=b"wrong")
        assert (done.code, done.stderr.count("\n")) == (4, 1)
        done = imgtools("convert", *words[:4], locked, tmp_path / "no")
        assert done.code in (2, 4)
        assert "--source-key-file" in done.stderr
    done = imgtools("convert", "-O", "raw", "--source-key-file", key, qcow2, tmp_path / "no")
    assert done.code == 2
    assert "is not encrypted" in done.stderr
    assert not (tmp_path / "no").exists()


def test_several_disks_into_a_folder(sources: dict[str, Path], disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (tmp_path / "one.vdi").symlink_to(sources["vdi"])
    missing = tmp_path / "missing.qcow2"
    words = ["convert", "-O", "qcow2", tmp_path / "one.vdi", missing, disk, folder]
    done = imgtools(*words, "--json")
    assert done.code == 4
    rows = json.loads(done.stdout)["result"]
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        "image.not-found",
        None,
    ]
    assert sorted(one.name for one in folder.iterdir()) == ["disk.qcow2", "one.qcow2"]
    assert same(folder / "one.qcow2", "qcow2", disk, "raw")
    assert imgtools(*words).code == 8  # the first failure: one.qcow2 exists
    done = imgtools("convert", "-O", "raw", disk, tmp_path / "disk.vdi", folder)
    assert done.code == 2
    assert "would become" in done.stderr
    done = imgtools("convert", "-O", "raw", disk, disk, tmp_path / "nofolder/")
    assert done.code == 2


def test_a_source_that_is_being_written(qcow2: Path, tmp_path: Path) -> None:
    with writer(qcow2, "qcow2") as pid:
        done = imgtools("convert", "-O", "raw", qcow2, tmp_path / "no")
    assert done.code == 8
    assert f"process {pid}" in done.stderr
    assert not (tmp_path / "no").exists()
    assert not leftovers(tmp_path)


def test_progress_rate_and_the_other_words(qcow2: Path, tmp_path: Path) -> None:
    words = ["-p", "-W", "-m", "2", "-S", "64K", "-r", "100M", "--salvage", "--progress", "json"]
    done = imgtools("convert", *words, "-O", "raw", qcow2, tmp_path / "x")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-1]["part"] == 1.0
    assert lines[-1]["total"] == SIZE
    done = imgtools("convert", "-S", "0", "-O", "raw", qcow2, tmp_path / "full")
    assert (tmp_path / "full").stat().st_blocks * 512 >= SIZE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-O", "bochs"], "it can write raw, qcow2"),
        (["-O", "nbd"], "it can write raw, qcow2"),
        (["-O", "nonsense"], "known: raw, qcow2"),
        ([], "Missing option"),
        (["-O", "raw", "-S", "100"], "multiple of 512"),
        (["-O", "raw", "-S", "-1"], "not negative"),
        (["-O", "raw", "-r", "0"], "more than 0"),
        (["-O", "raw", "-r", "9999999999G"], "2^63"),
        (["-O", "raw", "-m", "17"], "1<=x<=16"),
        (["-O", "raw", "--target-is-zero"], "only with -n"),
        (["-O", "qcow2", "-o", "backing_file=/etc/passwd"], "not for this command"),
        (["-O", "qcow2", "-o", "data_file=/tmp/x"], "not for this command"),
        (["-O", "qcow2", "-o", "cluster_size=7"], "power of two"),
        (["-O", "qcow2", "-o", "nonsense=1"], "nvalid"),
        (["-O", "vdi", "-o", "nonsense=1"], "nonsense"),
        (["-O", "luks"], "--target-key-file"),
        (["-O", "vdi", "--target-key-file", "/dev/null"], "cannot be encrypted"),
        (["-O", "qcow2", "--target-key-file", "/dev/null"], "empty"),
        (["-O", "raw", "--verify", "-l", "x"], "not with -l"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(
    words: list[str], said: str, qcow2: Path, tmp_path: Path
) -> None:
    done = imgtools("convert", *words, qcow2, tmp_path / "no")
    assert (done.code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert not (tmp_path / "no").exists()
    assert not leftovers(tmp_path)


def test_both_names_are_one_command() -> None:
    names = [["image", "convert"], ["convert"]]
    one, other = (imgtools(*words, "--help").lines[1:] for words in names)
    assert one == other


def test_the_formats_are_all_that_this_qemu_img_can_make() -> None:
    """Of files: the names of drivers that make nothing, or are protocols, have no such options."""
    said = qemu_img("--help").rpartition("Supported formats:")[2].splitlines()[0].split()
    protocols = {"file", "host_device", "host_cdrom", "nbd", "nvme"}
    protocols |= {"gluster", "iscsi", "iser", "nfs", "rbd", "ssh"}  # of qemu-block-extra
    made = {name for name in said if name not in protocols and options_of(name)}
    assert made == {*FORMATS, "luks"} == set(WRITABLE)
