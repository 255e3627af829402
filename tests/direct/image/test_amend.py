"""``imgtools image amend``: other options, the same disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli import Result, imgtools
from tests.direct.image.disks import info, leftovers, loop_device, run, tmpfs
from tests.direct.image.killing import finish, killed, records

pytestmark = pytest.mark.direct

MIB = 1 << 20


def amend(*words: str | Path, stdin: bytes = b"") -> Result:
    return imgtools("image", "amend", *words, stdin=stdin)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def data_of(path: Path) -> dict[str, Any]:
    found = info(path)["format-specific"]["data"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An overlay with data, with zeros over data of its backing file, and with a snapshot."""
    base, path = tmp_path / "base.qcow2", tmp_path / "a,b=c.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "16M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
    run("qemu-io", "-f", "qcow2", "-c", "write -z 1M 2M", "-c", "write -P 5 9M 1M", path)
    return path


def flat(path: Path) -> str:
    target = path.with_suffix(".flat")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, target)
    return digest(target)


def test_options_change_and_the_disk_does_not(image: Path) -> None:
    before, base = flat(image), digest(image.with_name("base.qcow2"))
    for words, name, value in (
        (["-o", "lazy_refcounts=on"], "lazy-refcounts", True),
        (["-o", "compat=0.10,lazy_refcounts=off"], "compat", "0.10"),
        (["-o", "compat=1.1,refcount_bits=64"], "refcount-bits", 64),
    ):
        done = amend("--json", *words, image)
        assert done.code == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["schema"] == "imgtools/image-amend"
        assert document["result"]["after"][name] == data_of(image)[name] == value
        assert document["result"]["before"][name] != value
        assert flat(image) == before
        run("qemu-img", "check", "-q", "-f", "qcow2", image)
    assert digest(image.with_name("base.qcow2")) == base
    assert not leftovers(image.parent)


def test_without_a_change_the_options_are_shown(image: Path) -> None:
    before = digest(image)
    shown = json.loads(amend("--json", image).stdout)["result"]
    assert shown["before"] == data_of(image)
    assert (shown["after"], shown["committed"]) == (None, False)
    assert "compat: 1.1" in amend(image).lines
    assert amend("-n", "-o", "compat=0.10", image).code == 0
    assert digest(image) == before


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["-o", "compatt=0.10"], 2, "did you mean compat?"),
        (["-o", "size=1G"], 2, "cannot be amended here"),
        (["-o", "backing_file=x"], 2, "cannot be amended here"),
        (["-o", "refcount_bits=3"], 2, "power of two"),
        (["-o", "compat=7"], 2, "the image is as it was"),
        (["-o", "lazy_refcounts=2"], 2, "on or off"),
        (["--add-key", "/etc/hostname"], 2, "not encrypted"),
        (["--key-file", "-", "--add-key", "-"], 2, "only one key"),
        (["--add-key", "/nonexistent"], 2, "cannot be read"),
    ],
)
def test_bad_options(image: Path, words: list[str], code: int, complaint: str) -> None:
    before = digest(image)
    done = amend(*words, image)
    assert (done.code, complaint in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert digest(image) == before
    assert not leftovers(image.parent)


def test_other_formats_have_nothing_to_amend(tmp_path: Path) -> None:
    image = tmp_path / "disk.vdi"
    run("qemu-img", "create", "-q", "-f", "vdi", image, "1M")
    assert amend("-o", "compat=1.1", image).code == 4
    assert amend("-o", "compat=1.1", tmp_path / "none").code == 4


def opens(path: Path, key: str) -> bool:
    kind = (
        "driver=luks,key-secret=k"
        if path.suffix == ".luks"
        else "driver=qcow2,encrypt.key-secret=k"
    )
    spec = f"{kind},file.driver=file,file.filename={path}"
    argv = ["qemu-img", "convert", "--object", f"secret,id=k,data={key}", "--image-opts", spec]
    copy = ["-O", "raw", str(path.with_suffix(".flat"))]
    return subprocess.run([*argv, *copy], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("kind", ["qcow2", "luks"])
def test_keys_come_and_go(tmp_path: Path, kind: str) -> None:
    old, new, image = tmp_path / "old", tmp_path / "new", tmp_path / f"disk.{kind}"
    old.write_text("one\n")
    new.write_text("two, 2")
    timing = "iter-time=100" if kind == "luks" else "encrypt.iter-time=100"
    made = imgtools("image", "create", "-f", kind, "-o", timing, "--key-file", old, image, "1M")
    assert made.code == 0, made.stderr
    before = digest(image)
    assert amend("--add-key", new, image).code == 4  # which key opens it?
    done = amend("--key-file", new, "--add-key", new, "--iter-time", "100", image)
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    done = amend("--key-file", old, "--remove-key", old, image)
    assert (done.code, "as it was" in done.stderr) == (2, True)
    assert digest(image) == before
    words = ["--key-file", old, "--add-key", "-", "--remove-key", old, "--iter-time", "100", image]
    assert amend(*words, stdin=b"two, 2\n").code == 0
    assert opens(image, "two,, 2")
    assert not opens(image, "one")


def test_in_use_on_a_device_and_on_a_full_disk(tmp_path: Path, image: Path) -> None:
    argv = ["qemu-io", "-f", "qcow2", image]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        while b"MiB" not in holder.stdout.readline():
            pass
        assert amend("-o", "compat=0.10", image).code == 8
        holder.stdin.close()
    with tmpfs(tmp_path / "small", "16m") as folder:
        copy = folder / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", copy, "16M")
        before = digest(copy)
        assert amend("-o", "compat=0.10", copy).code == 8
        assert digest(copy) == before
        assert amend("--workdir", tmp_path, "-o", "compat=0.10", copy).code == 0
        assert data_of(copy)["compat"] == "0.10"
    disk = tmp_path / "disk"
    run("qemu-img", "create", "-q", "-f", "qcow2", disk, "16M")
    with disk.open("r+b") as stream:
        stream.truncate(8 * MIB)
    with loop_device(disk) as device:
        assert amend("--workdir", tmp_path, "-o", "compat=0.10", device).code == 0
        assert data_of(device)["compat"] == "0.10"
        run("qemu-img", "check", "-q", "-f", "qcow2", device)


def test_killed_anywhere_it_has_the_old_options_or_the_new(tmp_path: Path, image: Path) -> None:
    disk, options = flat(image), "compat=1.1,refcount_bits=64"
    assert amend("-o", "compat=0.10", image).code == 0
    copy = tmp_path / "copy.qcow2"
    shutil.copyfile(image, copy)
    seen = set()
    # info, create, amend, check, shrink, check of the overlay, resize, commit
    for at, when in (
        (2, "before"),
        (4, "after"),
        (6, "after"),
        (7, "after"),
        (8, "during"),
        (8, "after"),
    ):
        shutil.copyfile(copy, image)
        assert killed(tmp_path, at, when, "amend", "-o", options, image) == -9, (at, when)
        texts = [(tmp_path / name).read_text() for name in records(tmp_path)]
        committing = any('"committing"' in text for text in texts)
        seen.add(committing)
        if committing:
            done = imgtools("filesystems", image)
            assert (done.code, "recover" in done.stderr) == (8, True), done.stderr
        else:
            assert digest(image) == digest(copy)
        finish(image)
        assert data_of(image)["compat"] == ("1.1" if committing else "0.10")
        assert flat(image) == disk
        run("qemu-img", "check", "-q", "-f", "qcow2", image)
    assert seen == {True, False}
