"""``imgtools info`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imgtools.image.qemu import info

pytestmark = pytest.mark.direct

IMGTOOLS = Path(sys.executable).with_name("imgtools")


def imgtools(*words: str | bytes | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run imgtools info."""
    return subprocess.run(
        [IMGTOOLS, "info", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def result_of(*words: str | bytes | Path, cwd: Path, exit_code: int = 0) -> list[dict[str, Any]]:
    done = imgtools("--json", *words, cwd=cwd)
    assert done.returncode == exit_code, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "imgtools/info"
    assert document["version"] == 1
    result = document["result"]
    assert isinstance(result, list)
    return result


def qemu_img(*words: str | Path, cwd: Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, cwd=cwd, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """base.img (raw) <- middle.qcow2 <- top.qcow2, which has a snapshot."""
    with (tmp_path / "base.img").open("wb") as stream:
        stream.truncate(4 << 20)
    for name, base, kind in (
        ("middle.qcow2", "base.img", "raw"),
        ("top.qcow2", "middle.qcow2", "qcow2"),
    ):
        qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", kind, name, cwd=tmp_path)
    qemu_img("snapshot", "-c", "before the update", "top.qcow2", cwd=tmp_path)
    return tmp_path


def test_json(folder: Path) -> None:
    (image,) = result_of("top.qcow2", cwd=folder)
    assert image["image"] == "top.qcow2"
    assert image["format"] == "qcow2"
    assert image["virtual_size"] == 4 << 20
    assert image["error"] is None
    assert image["in_use"] is False
    assert [(layer["path"], layer["format"]) for layer in image["layers"]] == [
        (str(folder / "top.qcow2"), "qcow2"),
        (str(folder / "middle.qcow2"), "qcow2"),
        (str(folder / "base.img"), "raw"),
    ]
    top = image["layers"][0]
    assert top["backing_file"] == "middle.qcow2"
    assert [snapshot["name"] for snapshot in top["snapshots"]] == ["before the update"]
    assert top["qemu"]["format_specific"]["data"]["refcount-bits"] == 16
    assert top["qemu"]["actual_size"] == (folder / "top.qcow2").stat().st_blocks * 512


def test_text(folder: Path) -> None:
    done = imgtools("top.qcow2", cwd=folder)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "  format:        qcow2, compat 1.1\n" in done.stdout
    assert "  virtual size:  4.0M (4194304 bytes)\n" in done.stdout
    assert "  backing file:  middle.qcow2 (qcow2)\n" in done.stdout
    assert "  in use:        no\n" in done.stdout
    assert "before the update\n" in done.stdout
    chain = done.stdout.partition("Backing chain, top to base\n")[2].splitlines()
    assert [line.split()[:3] for line in chain[1:]] == [
        ["0", "qcow2", "4.0M"],
        ["1", "qcow2", "4.0M"],
        ["2", "raw", "4.0M"],
    ]


def test_several_images_and_the_first_failure_counts(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "empty").touch()
    done = imgtools("pipe", "base.img", "empty", "top.qcow2", cwd=folder)
    assert done.returncode == 4
    assert [line for line in done.stdout.splitlines() if line and line[0] != " "] == [
        "base.img",
        "top.qcow2",
    ]
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [" pipe", " empty"]


def test_what_is_left_of_a_damaged_image_is_shown(folder: Path) -> None:
    with (folder / "top.qcow2").open("r+b") as stream:
        stream.seek(40)
        stream.write((1 << 40).to_bytes(8, "big"))
    done = imgtools("top.qcow2", cwd=folder)
    assert done.returncode == 4
    assert "PROBLEM:" in done.stdout
    assert "before the update" in done.stdout
    assert len(done.stderr.splitlines()) == 1
    (image,) = result_of("top.qcow2", cwd=folder, exit_code=4)
    assert image["error"]["code"] == "image.truncated"
    assert image["layers"][0]["problems"][0]["code"] == "qcow2.l1-beyond"
    assert image["layers"][0]["qemu"] is None


def test_a_refused_reference_is_shown_and_refused(folder: Path) -> None:
    command = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "evil"]
    qemu_img(*command, "1M", cwd=folder)
    done = imgtools("./evil", cwd=folder)
    assert done.returncode == 8
    assert "  backing file:  /etc/passwd (raw)\n" in done.stdout
    assert "root:" not in done.stdout
    (image,) = result_of("./evil", cwd=folder, exit_code=8)
    assert image["error"]["exit"] == 8
    assert len(image["layers"]) == 1


def test_missing_base(folder: Path) -> None:
    (folder / "base.img").unlink()
    done = imgtools("top.qcow2", cwd=folder)
    assert done.returncode == 4
    assert "base.img does not exist" in done.stderr
    assert "broken off here" in done.stdout


def test_untrusted(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "middle.qcow2").rename(folder / "sub" / "middle.qcow2")
    (folder / "middle.qcow2").symlink_to("sub/middle.qcow2")
    qemu_img("rebase", "-u", "-b", "../base.img", "-F", "raw", "sub/middle.qcow2", cwd=folder)
    assert imgtools("sub/middle.qcow2", cwd=folder).returncode == 0
    assert imgtools("--untrusted", "sub/middle.qcow2", cwd=folder).returncode == 8


def test_format_raw_is_raw(folder: Path) -> None:
    (image,) = result_of("--format", "raw", "top.qcow2", cwd=folder)
    assert image["format"] == "raw"
    assert image["layers"][0]["file_size"] == (folder / "top.qcow2").stat().st_size
    assert image["virtual_size"] == image["layers"][0]["qemu"]["virtual_size"]
    assert len(image["layers"]) == 1
    assert image["layers"][0]["problems"][0]["code"] == "raw.poses"


@pytest.mark.parametrize(
    "name",
    [
        b"a:b.qcow2",
        b"a,b=c.qcow2",
        b"new\nline",
        b" spaces ",
        b"\xff\xfe.qcow2",
        b"json:{}",
        b"driver=raw",
        b"nbd:x",
        b"-dash",
        b"\x1b[31mred",
    ],
)
def test_names(folder: Path, name: bytes) -> None:
    """No name is ever taken for a protocol, an option or a terminal's command."""
    odd = folder / "odd:dir,a=b"
    odd.mkdir()
    (folder / "base.img").rename(odd / os.fsdecode(name))
    (image,) = result_of("--", b"./" + name, cwd=odd)
    assert image["layers"][0]["qemu"]["virtual_size"] == 4 << 20
    done = imgtools("--", b"./" + name, cwd=odd)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[1].startswith("  format:")


def test_a_running_guest_is_named(folder: Path) -> None:
    holder = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", "top.qcow2"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while not (image := result_of("top.qcow2", cwd=folder)[0])["in_use"]:
            assert time.monotonic() < end
        assert image["layers"][0]["locks"]["holders"] == [{"pid": holder.pid, "name": "qemu-io"}]
        done = imgtools("top.qcow2", cwd=folder)
        assert done.returncode == 0
        assert f"for writing, by qemu-io (pid {holder.pid})" in done.stdout
        assert "may be inconsistent" in done.stderr
        assert imgtools("--strict", "-q", "top.qcow2", cwd=folder).returncode == 20
    finally:
        holder.kill()
        holder.communicate()


AUDIT = """
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from imgtools.image.vet import vet
vet(Path("evil"))
print([name for name in opened if name in ("evil", "/etc/passwd")])
"""


def test_vet_opens_only_the_named_file(folder: Path) -> None:
    command = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "evil"]
    qemu_img(*command, "1M", cwd=folder)
    argv = [sys.executable, "-c", AUDIT]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=folder)
    assert done.stdout == "['evil']\n"


@pytest.mark.parametrize("reference", ["backing_file=base", "data_file=base"])
def test_qemu_img_opens_no_reference_either(folder: Path, reference: str) -> None:
    """A FIFO in the place of the file that is named would block whoever opens it."""
    (folder / "base").write_bytes(bytes(1 << 20))
    options = reference + (",backing_fmt=raw" if "backing" in reference else "")
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "image", "1M", cwd=folder)
    (folder / "base").unlink()
    os.mkfifo(folder / "base")
    assert info(folder / "image", "qcow2").virtual_size == 1 << 20


@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("test:///default", 3, "no such file, and nosuch: no such domain in test:///default"),
        ("qemu+unix:///system?socket=/nonexistent", 4, "nosuch: no such file; nor can libvirt"),
    ],
)
def test_a_word_that_is_neither_a_file_nor_a_domain(
    uri: str, code: int, said: str, tmp_path: Path
) -> None:
    done = imgtools("-c", uri, "nosuch", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
    assert said in done.stderr
