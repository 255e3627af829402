"""`imgtools image check` beside qemu-img check, and the way back from every repair."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from imgtools.image.kept import keep_all
from tests.cli import PROGRAM, imgtools

pytestmark = pytest.mark.direct

CLUSTER = 1 << 16


def make(path: Path, image_format: str = "qcow2", *options: str) -> Path:
    """An image with some clusters of data."""
    argv = ["qemu-img", "create", "-q", "-f", image_format, *options, str(path), "64M"]
    subprocess.run(argv, check=True)
    writes = ("write -P 1 0 3M", "write -P 2 20M 1M", "write -P 3 63M 64k")
    words = [word for write in writes for word in ("-c", write)]
    subprocess.run(["qemu-io", "-f", image_format, *words, path], check=True, capture_output=True)
    return path


def damage(path: Path, how: str) -> bytes:
    """Harm the tables: that of the counters is cluster 1, its block 2, then L1 and L2."""
    raw = bytearray(path.read_bytes())
    if how == "leaks":
        raw += bytes(3 * CLUSTER)
        at = 2 * CLUSTER + 2 * (len(raw) // CLUSTER - 1)
        raw[at : at + 2] = b"\0\1"
    elif how == "counters":
        raw[2 * CLUSTER : 3 * CLUSTER] = bytes(CLUSTER)
    elif how == "table":
        raw[CLUSTER : 2 * CLUSTER] = bytes(CLUSTER)
    elif how == "dirty":
        raw[79] |= 1
    elif how.startswith("random"):
        numbers = random.Random(how)
        for _ in range(30):
            raw[numbers.randrange(CLUSTER, 6 * CLUSTER)] = numbers.randrange(256)
    path.write_bytes(raw)
    return bytes(raw)


def theirs(path: Path) -> tuple[int, dict[str, Any]]:
    argv = ["qemu-img", "check", "--output=json", "-f", path.suffix[1:], str(path)]
    done = subprocess.run(argv, check=False, capture_output=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def ours(*words: str | Path) -> tuple[int, dict[str, Any]]:
    done = imgtools("image", "check", "--json", *words)
    return done.code, json.loads(done.stdout)["result"][0] if done.stdout else {}


@pytest.mark.parametrize("how", ["none", "leaks", "counters", "table", "dirty", "random3"])
def test_the_answer_is_that_of_qemu_img(tmp_path: Path, how: str) -> None:
    path = make(tmp_path / "disk,odd:n=ame.qcow2")
    before = damage(path, how)
    status, facts = theirs(path)
    code, result = ours(path)
    assert path.read_bytes() == before
    states = {0: "ok", 2: "corrupt", 3: "leaks"}
    assert result["state"] == states[status]
    assert code == (0 if status == 0 and how != "dirty" else 10)
    for name in ("corruptions", "leaks"):
        assert result[name] == facts.get(name, 0)
    assert result["end"] == facts["image-end-offset"]
    assert result["allocated_clusters"] == facts.get("allocated-clusters")
    assert (result["problem"] is not None) == (how in ("dirty", "random3"))  # marked, cut off


@pytest.mark.parametrize("image_format", ["qed", "vdi", "vhdx", "vmdk", "parallels"])
def test_other_formats(tmp_path: Path, image_format: str) -> None:
    path = make(tmp_path / f"disk.{image_format}", image_format)
    status, _ = theirs(path)
    assert status == 0
    code, result = ours(path)
    assert (code, result["state"]) == (0, "ok")


def test_a_format_without_a_check(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    done = imgtools("image", "check", path)
    assert (done.code, "knows no check" in done.stderr) == (4, True)


def test_several_images_the_worst_decides(tmp_path: Path) -> None:
    good, bad = make(tmp_path / "good.qcow2"), make(tmp_path / "bad.qcow2")
    damage(bad, "leaks")
    done = imgtools("image", "check", good, bad)
    assert done.code == 10
    assert done.lines[0].startswith(f"{good}: ok; 65 of 1024 clusters")
    assert "1 leaked clusters" in done.lines[1]
    assert imgtools("image", "check", good, tmp_path / "gone.qcow2").code == 4
    assert imgtools("image", "check").code == 2
    assert imgtools("image", "check", "--keep", "x", good).code == 2


@pytest.mark.parametrize(
    ("how", "repair"),
    [
        ("leaks", "leaks"),
        ("counters", "all"),
        ("table", "all"),
        ("dirty", "all"),
        *((f"random{number}", "all") for number in (0, 2, 3)),
        *((f"random{number}", "leaks") for number in (8,)),
    ],
)
def test_a_repair_can_be_undone_byte_for_byte(tmp_path: Path, how: str, repair: str) -> None:
    path, twin = make(tmp_path / "disk.qcow2"), tmp_path / "twin.qcow2"
    before = damage(path, how)
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    twin.write_bytes(before)
    argv = ["qemu-img", "check", "-q", "-r", repair, "-f", "qcow2", str(twin)]
    status = subprocess.run(argv, check=False, capture_output=True).returncode
    if status == 1:  # nor does qemu-img manage
        assert ours("-r", repair, path)[0] == 4
        assert path.read_bytes() == before
        return
    code, result = ours("-r", repair, path)
    assert code == {0: 0, 2: 10, 3: 10}[status]
    assert path.stat().st_size == twin.stat().st_size
    kept = tmp_path / "disk.qcow2.kept"
    if twin.stat().st_size < 1 << 26:  # some repairs lead to a terabyte of holes
        assert path.read_bytes() == twin.read_bytes()
        assert result["kept"] == (str(kept) if twin.read_bytes() != before else None)
    twin.unlink()
    if result["kept"] is None:
        assert path.read_bytes() == before
        return
    assert kept.stat().st_size < 1 << 20
    done = imgtools("image", "check", "--restore", kept, path)
    assert done.code == 0, done.stderr
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == 1_600_000_000_123_456_789
    # Once more, from what is whole already.
    assert imgtools("image", "check", "--restore", kept, path).code == 0
    assert path.read_bytes() == before


def test_a_repair_that_was_cut_short_can_be_undone(tmp_path: Path) -> None:
    path, kept = make(tmp_path / "disk.qcow2"), tmp_path / "all.kept"
    before = damage(path, "counters")
    keep_all(path, kept)
    with path.open("r+b") as stream:  # half of it had been written
        stream.seek(2 * CLUSTER)
        stream.write(b"half")
        stream.seek(1 << 30)
        stream.write(b"end")
    assert imgtools("image", "check", "--restore", kept, path).code == 0
    assert path.read_bytes() == before


# Stands for qemu-img: a repair says that it has begun, and waits; $WRITES to it before.
WAITING = """#!/bin/bash
case "$*" in
*" -r "*)
    [ -z "$WRITES" ] || printf x | dd of="$WRITES" bs=1 seek=131072 conv=notrunc status=none
    touch "$BEGUN"
    sleep 60
esac
exec "$REAL" "$@"
"""


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_undo_what_was_done(
    tmp_path: Path, written: bool, number: int
) -> None:
    path, begun = make(tmp_path / "disk.qcow2"), tmp_path / "begun"
    before = damage(path, "counters")
    shim = tmp_path / "bin" / "qemu-img"
    shim.parent.mkdir()
    shim.write_text(WAITING)
    shim.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "REAL": shutil.which("qemu-img") or "",
        "BEGUN": str(begun),
        "WRITES": str(path) if written else "",
    }
    argv = [PROGRAM, "image", "check", "-r", "all", path]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 30
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 128 + number
    assert "Traceback" not in said
    kept = tmp_path / "disk.qcow2.kept"
    assert kept.exists() == written
    assert (f"imgtools image check --restore {kept} {path}" in said) == written
    assert (path.read_bytes() != before) == written
    if written:
        assert imgtools("image", "check", "--restore", kept, path).code == 0
    assert path.read_bytes() == before


def test_an_image_that_was_used_since_is_not_restored(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    before = damage(path, "counters")
    ours("-r", "all", path)
    kept = tmp_path / "disk.qcow2.kept"
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -P 9 40M 1M", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    used = path.read_bytes()
    done = imgtools("image", "check", "--restore", kept, path)
    assert (done.code, "used since" in done.stderr) == (8, True)
    assert path.read_bytes() == used
    assert imgtools("image", "check", "--restore", kept, "--force", path).code == 0
    assert path.read_bytes()[: 3 * CLUSTER] == before[: 3 * CLUSTER]


@pytest.mark.parametrize("cut", [0, 5, 40, 200, 70_000])
def test_a_damaged_kept_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = make(tmp_path / "disk.qcow2")
    damage(path, "counters")
    ours("-r", "all", path)
    kept = tmp_path / "disk.qcow2.kept"
    kept.write_bytes(kept.read_bytes()[:cut])
    before = path.read_bytes()
    done = imgtools("image", "check", "--restore", kept, path)
    assert (done.code, "kept copy" in done.stderr) == (8, True)
    assert path.read_bytes() == before


def test_nothing_is_kept_of_a_good_image_and_nothing_overwritten(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    before, status = path.read_bytes(), path.stat()
    code, result = ours("-r", "all", path)
    assert (code, result["kept"]) == (0, None)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    damage(path, "leaks")
    (tmp_path / "mine").write_text("precious")
    done = imgtools("image", "check", "-r", "leaks", "--keep", tmp_path / "mine", path)
    assert done.code == 8
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "disk.qcow2.kept").write_text("precious")
    _, result = ours("-r", "leaks", path)
    assert result["kept"] == str(tmp_path / "disk.qcow2.kept-2")
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "disk.qcow2",
        "disk.qcow2.kept",
        "disk.qcow2.kept-2",
        "mine",
    ]


def test_without_space_for_what_is_kept_nothing_changes(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    before = damage(path, "counters")
    done = imgtools("image", "check", "-r", "all", "--keep", "/dev/full", path)
    assert done.code == 8
    done = imgtools("image", "check", "-r", "all", "--keep", tmp_path / "no/folder", path)
    assert done.code == 4
    assert path.read_bytes() == before


def test_an_image_in_use_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    argv = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"length\n")
        child.stdin.flush()
        child.stdout.read1(100)
        time.sleep(0.2)
        for words in ([], ["-r", "all"]):
            done = imgtools("image", "check", *words, path)
            assert (done.code, "qemu-io" in done.stderr) == (8, True), done.stderr
        child.stdin.close()


def test_what_only_the_parent_lacks_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "child.qcow2"
    words = ["-u", "-b", "gone.qcow2", "-F", "qcow2", str(path), "8M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    assert imgtools("image", "check", path).code == 0


def test_an_image_that_is_cut_off_is_checked(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    os.truncate(path, 20 * CLUSTER)
    code, result = ours(path)
    assert (code, result["state"]) == (10, "corrupt")
    assert "truncated" in result["problem"]["message"]
    assert result["corruptions"] == theirs(path)[1]["corruptions"]


def test_hostile_tables_are_refused_or_answered_in_time(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2", "qcow2", "-o", "cluster_size=512")
    os.truncate(path, 1 << 40)  # a counter for each of two thousand million clusters
    done = imgtools("image", "check", path)
    assert (done.code, "too many" in done.stderr) == (4, True)


def test_an_external_data_file(tmp_path: Path) -> None:
    path, data = tmp_path / "disk.qcow2", tmp_path / "data.img"
    words = ["-o", f"data_file={data}", str(path), "8M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    raw = bytearray(path.read_bytes())
    raw[79] |= 1
    path.write_bytes(raw)
    before = data.read_bytes()
    assert ours("-r", "all", path)[0] == 0
    assert data.read_bytes() == before
    assert imgtools("image", "check", "--restore", f"{path}.kept", path).code == 0
    assert path.read_bytes() == bytes(raw)


def test_overlays_of_a_repaired_image_are_warned_of(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    overlay = tmp_path / "over.qcow2"
    words = ["-b", str(path), "-F", "qcow2", str(overlay)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    damage(path, "leaks")
    assert "over.qcow2" not in imgtools("image", "check", "-r", "leaks", path).stderr
    damage(path, "counters")
    assert "over.qcow2" in imgtools("image", "check", "-r", "all", path).stderr
