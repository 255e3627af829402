"""``imgtools image create``: what it makes is what qemu-img says it is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from imgtools.cli.main import run as run_here
from tests.cli import PROGRAM, Result, imgtools
from tests.direct.image.disks import info, loop_device, run, tmpfs

pytestmark = pytest.mark.direct

MIB = 1 << 20


def create(*words: str | Path, stdin: bytes = b"") -> Result:
    return imgtools("image", "create", *words, stdin=stdin)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "16M")
    return path


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """The exit code and the one line of a command that fails; in this process, to be quick."""
    code = run_here(["image", "create", *map(str, words)])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return code, shown.err


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("word", "size"),
    [
        ("512", 512),
        ("64k", 65536),
        ("64K", 65536),
        ("3m", 3 * MIB),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
        ("1b", 512),
    ],
)
def test_sizes_are_powers_of_1024(tmp_path: Path, word: str, size: int) -> None:
    target = tmp_path / "new.img"
    done = create("--json", target, word)
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "imgtools/image-create"
    assert document["result"]["format"] == "qcow2"
    assert document["result"]["virtual_size"] == info(target)["virtual-size"] == size
    assert bool(document["warnings"]) == (word == "1b")


@pytest.mark.parametrize("word", ["0", "-1", "-1G", "8E", "1.3b", "1X", "", "1e3", "٣", "7E"])
def test_a_senseless_size_makes_nothing(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, tmp_path / "new.qcow2", word)[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx"])
def test_every_format(tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"a,b=c.{kind}"
    assert create("-f", kind, target, "17M").code == 0
    assert info(target, kind)["virtual-size"] >= 17 * MIB
    assert not leftovers(tmp_path)


def test_an_image_of_several_files(tmp_path: Path) -> None:
    target = tmp_path / "disk.vmdk"
    assert create("-f", "vmdk", "-o", "subformat=monolithicFlat", target, "5M").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"disk.vmdk", "disk-flat.vmdk"}
    assert info(target, "vmdk")["virtual-size"] == 5 * MIB


def test_a_name_that_says_raw(tmp_path: Path) -> None:
    done = create(tmp_path / "disk.raw", "1M")
    assert done.code == 2
    assert "-f raw" in done.stderr
    assert create("-f", "raw", tmp_path / "disk.raw", "1M").code == 0


# --- backing files -------------------------------------------------------------------------------


def test_an_overlay_takes_size_and_format_from_its_backing_file(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "overlay.qcow2"
    done = create("-b", "base.qcow2", target)
    assert done.code == 0, done.stderr
    found = info(target)
    assert found["backing-filename"] == "base.qcow2"
    assert found["full-backing-filename"] == str(base)
    assert found["backing-filename-format"] == "qcow2"
    assert found["virtual-size"] == 16 * MIB
    run("qemu-img", "compare", "-s", "-f", "qcow2", "-F", "qcow2", base, target)


def test_a_relative_name_is_right_from_the_overlays_folder(tmp_path: Path, base: Path) -> None:
    (tmp_path / "sub").mkdir()
    done = subprocess.run(
        ["imgtools", "image", "create", "-b", "base.qcow2", "sub/o.qcow2"],
        executable=PROGRAM,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "-b ../base.qcow2" in done.stderr
    target = tmp_path / "sub" / "o.qcow2"
    assert create("-b", "../base.qcow2", target).code == 0
    assert os.path.realpath(info(target)["full-backing-filename"]) == str(base)
    assert create("--force", "-b", base, target).code == 0
    assert info(target)["backing-filename"] == str(base)


def test_names_with_colons_commas_and_bytes(tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "raw", f"{tmp_path}/nbd:a,b=c", "4M")
    assert create("-b", "nbd:a,b=c", tmp_path / "json:{}").code == 0
    found = info(tmp_path / "json:{}")
    assert found["backing-filename"] == "./nbd:a,b=c"
    run("qemu-img", "check", "-q", tmp_path / "json:{}")
    odd = os.fsdecode(b"caf\xe9.raw")
    run("qemu-img", "create", "-q", "-f", "raw", f"{tmp_path}/{odd}", "4M")
    assert create("-b", odd, tmp_path / os.fsdecode(b"top\xe9.qcow2")).code == 0
    run("qemu-img", "map", "-f", "qcow2", tmp_path / os.fsdecode(b"top\xe9.qcow2"))


def test_smaller_than_the_backing_file_is_a_warning(tmp_path: Path, base: Path) -> None:
    done = create("--strict", "-b", base, tmp_path / "small.qcow2", "8M")
    assert done.code == 20
    assert "smaller" in done.stderr
    assert info(tmp_path / "small.qcow2")["virtual-size"] == 8 * MIB


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["-b", "none.qcow2"], 4, "no such file"),
        (["-b", "/etc/passwd"], 8, "not a disk image"),
        (["-b", "nbd://host/x"], 8, "only files"),
        (["-b", "json:{}"], 8, "only files"),
        (["-b", ""], 2, "the name must have"),
        (["-b", "x" * 1100], 2, "the name must have"),
        (["-F", "raw"], 2, "no backing file"),
        (["-b", "base.qcow2", "-F", "vmdk"], 2, "is qcow2"),
        (["-b", "base.qcow2", "-F", "nonsense"], 2, "unknown image format"),
        (["-b", "base.qcow2", "-f", "raw"], 2, "cannot rest on"),
        (["-b", "base.qcow2", "-f", "vmdk"], 2, "cannot rest on"),
        (["-b", "text"], 8, "not a disk image"),
    ],
)
def test_bad_backing_files(
    tmp_path: Path,
    base: Path,
    words: list[str],
    code: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_text("host secrets\n" * 100)
    before = sorted(tmp_path.iterdir())
    got, said = refusal(capsys, *words, tmp_path / "new.qcow2")
    assert (got, complaint in said) == (code, True), said
    assert sorted(tmp_path.iterdir()) == before


def test_a_raw_disk_that_poses_as_qcow2_stays_raw(tmp_path: Path) -> None:
    disk = tmp_path / "guest.img"
    run(
        "qemu-img",
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        disk,
        "1M",
    )
    with disk.open("r+b") as stream:
        stream.seek(510)
        stream.write(b"\x55\xaa")  # as on a guest's disk
        stream.truncate(MIB)
    assert create("-b", disk, tmp_path / "one.qcow2").code == 8  # its backing file is no image
    assert create("-b", disk, "-F", "raw", tmp_path / "two.qcow2").code == 0
    assert info(tmp_path / "two.qcow2")["backing-filename-format"] == "raw"
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, tmp_path / "two.qcow2")


# --- options -------------------------------------------------------------------------------------


def test_options_reach_the_image(tmp_path: Path) -> None:
    words = ["-o", "extended_l2=yes,cluster_size=128k", "-o", "compression_type=zstd"]
    target = tmp_path / "new.qcow2"
    assert create(*words, target, "1G").code == 0
    found = info(target)
    data = found["format-specific"]["data"]
    assert (found["cluster-size"], data["extended-l2"], data["compression-type"]) == (
        131072,
        True,
        "zstd",
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-o", "clustersize=64k"], "did you mean cluster_size?"),
        (["-o", "lazy_refcounts=maybe"], "must be on or off"),
        (["-o", "cluster_size=big"], "must be a size"),
        (["-o", "cluster_size=1000"], "power of two"),
        (["-o", "refcount_bits=x"], "must be a number"),
        (["-o", "compat"], "expected NAME=VALUE"),
        (["-o", "compat=1.1,compat=0.10"], "given twice"),
        (["-o", "backing_file=x"], "-b FILE"),
        (["-o", "encrypt.key-secret=x"], "--key-file"),
        (["-o", "encrypt.format=luks"], "needs a key"),
        (["-o", "encrypt.format=aes"], "only luks"),
        (["-f", "vdi", "--key-file", "/dev/null"], "the key is empty"),
        (["-f", "nonsense"], "unknown image format"),
        (["--preallocation", "full", "-o", "preallocation=off"], "contradict"),
        (["-o", "data_file="], "is empty"),
        (["-o", "data_file=new.qcow2"], "is the image itself"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refusal(capsys, *words, tmp_path / "new.qcow2", "1M")
    assert (code, complaint in said) == (2, True), said
    assert not list(tmp_path.iterdir())


def test_the_options_of_a_format_are_listed() -> None:
    done = create("-f", "vmdk", "-o", "help")
    assert done.code == 0
    assert "subformat" in done.text
    listed = json.loads(create("--json", "-f", "qcow2", "-o", "help").stdout)["result"]["options"]
    assert {"name": "size", "type": "size", "text": "Virtual disk size"} in listed


def test_a_data_file_is_right_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    target = tmp_path / "new.qcow2"
    words = ["-o", "data_file=data/a,,b.raw,data_file_raw=on"]
    done = create("--json", *words, target, "4M")
    assert done.code == 0, done.stderr
    data = tmp_path / "data" / "a,b.raw"
    assert json.loads(done.stdout)["result"]["data_file"] == str(data)
    assert data.stat().st_size == 4 * MIB
    assert info(target)["format-specific"]["data"]["data-file"] == str(data)
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": str(target)}}
    run("qemu-img", "bench", "-w", "-q", "-c", "1", "-s", "4096", "json:" + json.dumps(node))
    # Not over an older data file, either.
    target.unlink()
    before = data.read_bytes()
    assert create(*words, target, "4M").code == 8
    assert data.read_bytes() == before
    assert not target.exists()
    assert not leftovers(tmp_path)
    assert not leftovers(tmp_path / "data")


def test_an_encrypted_image_opens_with_its_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"open, sesame\n")
    fast = "encrypt.iter-time=200"
    assert create("-o", fast, "--key-file", key, tmp_path / "a.qcow2", "1M").code == 0
    words = ["-o", f"{fast},data_file=b.data", "--key-file", "-", tmp_path / "b.qcow2", "1M"]
    assert create(*words, stdin=b"open, sesame").code == 0
    words = ["-f", "luks", "-o", "iter-time=200", "--key-file", key, tmp_path / "c.luks", "1M"]
    assert create(*words).code == 0
    for name, options in (
        ("a.qcow2", "driver=qcow2,encrypt.key-secret=k"),
        ("b.qcow2", "driver=qcow2,encrypt.key-secret=k"),
        ("c.luks", "driver=luks,key-secret=k"),
    ):
        spec = f"{options},file.driver=file,file.filename={tmp_path / name}"
        for secret, opens in (("open,, sesame", True), ("wrong", False)):
            argv = ["qemu-img", "convert", "--object", f"secret,id=k,data={secret}", "--image-opts"]
            copy = ["-O", "raw", tmp_path / "copy"]
            done = subprocess.run([*argv, spec, *copy], capture_output=True, check=False)
            assert (done.returncode == 0) == opens, (name, done.stderr)


# --- space, older files, devices -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_preallocation_takes_the_space_or_is_refused(tmp_path: Path, kind: str) -> None:
    with tmpfs(tmp_path / "small", "8m") as folder:
        words = ["-f", kind, "--preallocation", "full", folder / "new.img"]
        assert create(*words, "4M").code == 0
        assert (folder / "new.img").stat().st_blocks * 512 >= 4 * MIB
        done = create(*words[:-1], folder / "other.img", "6M")
        assert done.code == 8
        assert "are free" in done.stderr
        assert [path.name for path in folder.iterdir()] == ["new.img"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "128k") as folder:
        done = create(folder / "new.qcow2", "1P")  # its tables have 16 MiB
        assert done.code == 8, done.stderr
        assert done.stderr.count("\n") == 1
        assert not list(folder.iterdir())


def test_an_older_image_stays_unless_forced(tmp_path: Path, base: Path) -> None:
    before = base.read_bytes()
    assert create(base, "1M").code == 8
    assert base.read_bytes() == before
    assert create("--force", "-b", base, base).code == 8  # on itself
    assert base.read_bytes() == before
    overlay = tmp_path / "overlay.qcow2"
    assert create("-b", base, overlay).code == 0
    assert create("--force", base, "1M").code == 8  # the overlay would be broken
    assert base.read_bytes() == before
    assert create("--force", overlay, "1M").code == 0
    assert "backing-filename" not in info(overlay)
    assert create("--force", tmp_path, "1M").code == 8


def test_an_image_in_use_is_not_replaced(tmp_path: Path, base: Path) -> None:
    argv = ["qemu-io", "-f", "qcow2", base]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in holder.stdout.readline():
            pass
        assert create("--force", base, "1M").code == 8
        assert create("-b", base, tmp_path / "overlay.qcow2").code == 8
        holder.stdin.close()
    assert info(base)["virtual-size"] == 16 * MIB


def test_onto_a_block_device(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * (8 * MIB))
    with loop_device(disk) as device:
        before = disk.read_bytes()
        assert create(device, "1G").code == 8
        assert disk.read_bytes() == before
        assert create("--force", "-f", "raw", device, "1M").code == 2
        assert disk.read_bytes() == before
        assert create("--force", device, "1G").code == 0
        assert device.is_block_device()
        assert info(device)["virtual-size"] == 1 << 30
        run("qemu-img", "check", "-q", "-f", "qcow2", device)
        run("mkfs.ext4", "-q", "-F", device)
        run("mkdir", tmp_path / "mnt")
        run("mount", device, tmp_path / "mnt")
        try:
            assert create("--force", device, "1G").code == 8  # the host uses it
        finally:
            run("umount", tmp_path / "mnt")
    assert not leftovers(Path("/dev"))


def test_a_missing_folder(tmp_path: Path) -> None:
    done = create(tmp_path / "none" / "new.qcow2", "1M")
    assert done.code == 4
    assert "mkdir -p" in done.stderr
