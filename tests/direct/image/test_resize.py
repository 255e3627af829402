"""``imgtools image resize``: sgdisk, sfdisk and qemu-img judge what it leaves."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import info, leftovers, loop_device, run, tmpfs
from tests.direct.image.gpt_disks import (
    MIB,
    SMALLEST,
    as_qcow2,
    check_gpt,
    content,
    digest,
    flat,
    make_gpt,
    refused,
    resize,
)

pytestmark = pytest.mark.direct

# --- GPT -----------------------------------------------------------------------------------------


def test_a_raw_image_grows_and_shrinks_with_its_gpt(tmp_path: Path) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    before = content(disk)
    done = resize("--json", disk, "+16M")
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "imgtools/image-resize"
    assert document["result"] == {
        "image": str(disk),
        "format": "raw",
        "old_size": 16 * MIB,
        "new_size": 32 * MIB,
        "committed": True,
        "dry_run": False,
        "table": "gpt",
        "smallest_size": SMALLEST,
        "last_partition": 2,
        "gpt_backup_moved": {"from": 16 * MIB - 512, "to": 32 * MIB - 512},
    }
    assert [one["code"] for one in document["warnings"]] == ["advice.grow"]
    assert disk.stat().st_size == 32 * MIB
    check_gpt(disk)
    assert disk.read_bytes()[16 * MIB - 512 : 16 * MIB] == bytes(512)  # the old backup header
    assert resize("--shrink", disk, str(SMALLEST)).code == 0
    assert disk.stat().st_size == SMALLEST
    check_gpt(disk)
    assert content(disk) == before
    assert resize(disk, str(SMALLEST)).code == 0
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("options", [(), ("-o", "compat=0.10"), ("-o", "cluster_size=4k")])
def test_a_qcow2_grows_and_shrinks_with_its_gpt(tmp_path: Path, options: tuple[str, ...]) -> None:
    disk = make_gpt(tmp_path / "disk")
    before = content(disk)
    image = as_qcow2(disk, *options)
    for words, size in (((image, "256M"), 256 * MIB), (("--shrink", image, "-248M"), 8 * MIB)):
        assert resize(*words).code == 0
        run("qemu-img", "check", "-q", "-f", "qcow2", image)
        assert info(image)["virtual-size"] == size
        check_gpt(flat(image))
        assert content(flat(image)) == before


def test_an_overlay_is_resized_and_its_backing_file_is_not(tmp_path: Path) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    before, whole = content(disk), digest(disk)
    image = tmp_path / "a,b=c:d.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", f"file:{image}")
    for words, size in (((image, "40M"), 40 * MIB), (("--shrink", image, "7M"), 7 * MIB)):
        assert resize(*words).code == 0
        assert info(image)["virtual-size"] == size
        check_gpt(flat(image))
    assert content(flat(image)) == before
    assert digest(disk) == whole
    # What was cut does not come back from the backing file.
    assert resize(image, "16M").code == 0
    assert not any(flat(image).read_bytes()[7 * MIB : 16 * MIB - 33 * 512])


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(16 * MIB)
    with loop_device(disk, "--sector-size", "4096") as device:
        run("sgdisk", "-n1:256:1279", device)
    before = disk.read_bytes()[MIB : 5 * MIB]
    smallest = 5 * MIB + 5 * 4096
    assert resize(disk, "20000001").code == 0
    assert disk.stat().st_size == 4883 * 4096
    assert str(smallest) in resize("--shrink", disk, "1").stderr
    assert resize("--shrink", disk, str(smallest)).code == 0
    with loop_device(disk, "--sector-size", "4096") as device:
        check_gpt(device)
    assert disk.read_bytes()[MIB : 5 * MIB] == before


def test_a_gpt_that_another_tool_left_behind_is_moved(tmp_path: Path) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    run("qemu-img", "resize", "-q", "-f", "raw", disk, "20M")
    assert "No problems" not in run_any("sgdisk", "-v", disk)
    assert resize(disk, "20M").code == 0
    check_gpt(disk)


def run_any(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def test_a_hybrid_mbr_and_odd_tables_stay_valid(tmp_path: Path) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    run("sgdisk", "-h", "1", disk)
    mbr = disk.read_bytes()[:512]
    assert resize(disk, "24M").code == 0
    assert disk.read_bytes()[:512] == mbr
    wide = make_gpt(tmp_path / "wide.img")
    run("sgdisk", "-S", "256", wide)
    assert resize(wide, "24M").code == 0
    check_gpt(wide)
    line = resize("--shrink", wide, "6M").stderr
    assert str(6 * MIB + 65 * 512) in line


def test_a_damaged_gpt_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    with disk.open("r+b") as stream:
        stream.seek(512 + 60)
        stream.write(b"\xff")  # the disk's GUID: a wrong checksum
    before = digest(disk)
    assert "cannot be told for certain" in refused(capsys, "--shrink", disk, "12M")
    assert digest(disk) == before
    done = resize("--strict", disk, "20M")
    assert done.code == 20
    assert "stays as it is" in done.stderr
    assert disk.stat().st_size == 20 * MIB


# --- what else may be on it ----------------------------------------------------------------------


def test_an_mbr_with_logical_partitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(16 * MIB)
    script = b"start=2048,size=2048\nstart=4096,size=16384,type=5\nstart=6144,size=2048\n"
    run("sfdisk", "-q", disk, stdin=script)
    assert resize(disk, "32M").code == 0
    line = refused(capsys, "--shrink", disk, "9M")
    assert f"extended partition would be cut; the smallest safe size is {10 * MIB}" in line
    assert resize("--shrink", disk, "10M").code == 0
    assert "No errors" in run("sfdisk", "--verify", disk)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "luks", "swap", "lvm"])
def test_a_filesystem_on_the_whole_disk_is_not_cut(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk.img"
    size = 320 * MIB if kind == "xfs" else 16 * MIB
    with disk.open("wb") as stream:
        stream.truncate(size)
    if kind == "luks":
        words = ["--object", "secret,id=k,data=x", "-o", "key-secret=k,iter-time=100"]
        for _ in range(10):  # qemu measures its own time, in vain on some machines
            make = ["qemu-img", "create", "-q", "-f", "luks", *words, str(disk), "14M"]
            if subprocess.run(make, check=False, capture_output=True).returncode == 0:
                break
        size = disk.stat().st_size
    elif kind == "lvm":
        header = b"LABELONE" + struct.pack("<QII", 1, 0, 32) + b"LVM2 001" + b"A" * 32
        with disk.open("r+b") as stream:
            stream.seek(512)
            stream.write(header)
    elif kind == "swap":
        run("mkswap", disk)
    elif shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"no mkfs.{kind}")
    else:
        run(f"mkfs.{kind}", "-q", disk)
    before = digest(disk)
    line = refused(capsys, "--shrink", disk, str(size - 4096))
    assert f"the smallest safe size is {size} bytes" in line
    assert digest(disk) == before
    assert resize(disk, "+4M").code == 0
    if kind in ("ext4", "xfs"):  # these say how large they are
        assert resize("--shrink", disk, str(size)).code == 0
        assert digest(disk) == before


def test_unknown_data_is_not_cut_and_zeros_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(16 * MIB)
        stream.seek(9 * MIB + 5)
        stream.write(b"x")
        stream.write(bytes(MIB))
    line = refused(capsys, "--shrink", disk, "8M")
    assert f"smallest safe size is {9 * MIB + 512}" in line
    assert resize("--shrink", disk, str(9 * MIB + 512)).code == 0
    assert disk.read_bytes().rstrip(b"\0").endswith(b"x")


def test_an_array_that_is_found_from_the_end_does_not_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(16 * MIB)
        offset = (16 * MIB // 512 - 16) * 512  # MD 1.0: the kernel's md_p.h
        stream.seek(offset)
        stream.write(struct.pack("<II", 0xA92B4EFC, 1))
        stream.seek(offset + 144)
        stream.write(struct.pack("<Q", offset // 512))
    assert "would not be found" in refused(capsys, disk, "32M")
    assert "smallest safe size" in refused(capsys, "--shrink", disk, "8M")


@pytest.mark.parametrize("raw", ["on", "off"])
def test_an_external_data_file(tmp_path: Path, raw: str) -> None:
    image, data = tmp_path / "disk.qcow2", tmp_path / "data"
    words = ["-o", f"data_file={data},data_file_raw={raw}"]
    assert imgtools("image", "create", *words, image, "16M").code == 0
    disk = make_gpt(tmp_path / "disk.img")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", disk, image)
    for words_, size in (((image, "32M"), 32 * MIB), (("--shrink", image, "8M"), 8 * MIB)):
        done = resize(*words_)
        assert done.code == 0, done.stderr
        assert info(image)["virtual-size"] == size
        run("qemu-img", "check", "-q", "-f", "qcow2", image)
        check_gpt(flat(image))
        assert content(flat(image)) == content(disk)


# --- refusals ------------------------------------------------------------------------------------


def test_bad_input_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    before = digest(disk)
    for words, code in (
        ((disk, "8M"), 8),  # without --shrink
        (("--shrink", disk, "6M"), 8),
        (("--shrink", disk, "-16M"), 2),
        (("--shrink", disk, "0"), 2),
        ((disk, "x"), 2),
        ((disk, "+8E"), 2),
        ((disk, "+7E"), 2),
        ((disk, "--format", "nonsense", "1G"), 2),
        ((tmp_path / "none.img", "1G"), 4),
        ((tmp_path, "1G"), 4),
        (("nbd://host/x", "1G"), 2),
    ):
        refused(capsys, *words, code=code)
    assert digest(disk) == before
    assert resize("-n", disk, "1G").code == 0
    assert digest(disk) == before
    assert [path.name for path in tmp_path.iterdir()] == ["disk.img"]


def test_formats_without_resize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("vmdk", "vdi", "vhdx", "vpc"):
        image = tmp_path / f"disk.{kind}"
        run("qemu-img", "create", "-q", "-f", kind, image, "16M")
        assert "convert" in refused(capsys, image, "32M", code=4)


def test_a_qed_only_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = make_gpt(tmp_path / "disk")
    image = tmp_path / "disk.qed"
    run("qemu-img", "convert", "-f", "raw", "-O", "qed", disk, image)
    before = digest(image)
    line = refused(capsys, "--shrink", image, "8M", code=4)
    assert "never smaller" in line
    assert f"imgtools convert -O qcow2 {image} NEW" in line
    refused(capsys, "--preallocation", "full", image, "32M", code=2)
    assert digest(image) == before
    assert resize(image, "32M").code == 0
    run("qemu-img", "check", "-q", "-f", "qed", image)
    assert info(image, "qed")["virtual-size"] == 32 * MIB
    run("qemu-img", "convert", "-f", "qed", "-O", "raw", image, tmp_path / "flat")
    check_gpt(tmp_path / "flat")
    assert content(tmp_path / "flat") == content(disk)


def test_snapshots_and_overlays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = as_qcow2(make_gpt(tmp_path / "disk"))
    run("qemu-img", "snapshot", "-c", "one", image)
    assert "internal snapshots" in refused(capsys, "--shrink", image, "8M")
    assert resize(image, "32M").code == 0
    check_gpt(flat(image))
    run("qemu-img", "check", "-q", "-f", "qcow2", image)
    run("qemu-img", "snapshot", "-a", "one", image)
    assert info(image)["virtual-size"] == 16 * MIB
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", tmp_path / "top")
    assert "top rests on it" in refused(capsys, image, "32M")
    assert resize("--break-overlays", image, "32M").code == 0


def test_an_image_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    argv = ["qemu-io", "-f", "raw", disk]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in holder.stdout.readline():
            pass
        assert "qemu-io" in refused(capsys, disk, "32M")
        holder.stdin.close()
    assert disk.stat().st_size == 16 * MIB


# --- storage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_preallocation(tmp_path: Path, kind: str) -> None:
    with tmpfs(tmp_path / "small", "160m") as folder:
        image = make_gpt(folder / "disk")
        if kind == "qcow2":
            raw, image = image, as_qcow2(image)
            raw.unlink()
        before = image.stat().st_blocks
        done = resize("--preallocation", "full", image, "+200M")
        assert (done.code, "are free" in done.stderr) == (8, True)
        assert resize("--preallocation", "falloc", image, "+32M").code == 0
        assert (image.stat().st_blocks - before) * 512 >= 32 * MIB
        check_gpt(image if kind == "raw" else flat(image))


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tmpfs(tmp_path / "small", "40m") as folder:
        disk = make_gpt(folder / "disk.img")
        before = digest(disk)
        refused(capsys, disk, "32M")  # no space for the overlay to begin with
        assert digest(disk) == before
        assert not leftovers(folder)
        assert resize("--workdir", tmp_path, disk, "32M").code == 0
        check_gpt(disk)


def test_a_block_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    with loop_device(disk) as device:
        assert "lvextend" in refused(capsys, "--format", "raw", device, "32M")
    image = as_qcow2(disk)
    with image.open("r+b") as stream:
        stream.truncate(32 * MIB)
    with loop_device(image) as device:
        assert "--workdir" in refused(capsys, device, "32M")
        assert resize("--workdir", tmp_path, device, "32M").code == 0
    assert info(image)["virtual-size"] == 32 * MIB
    check_gpt(flat(image))
