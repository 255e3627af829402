"""The doctor of backing chains on folders that qemu-img built, and on what strangers put there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imgtools.transaction.record import Record, RecordedDisk, identity_of, write
from tests.cli import PROGRAM, Result, imgtools
from tests.direct.test_hostile_images import REFUSED

pytestmark = pytest.mark.direct

SIZE = 8 << 20
FORMAT_EXTENSION = b"\xe2\x79\x2a\xca"


def qemu_img(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True)
    return done.stdout


def make(path: Path, parent: str | Path | None = None, image_format: str = "qcow2") -> Path:
    """A qcow2; over ``parent`` whether that is there or not."""
    backing = [] if parent is None else ["-u", "-b", str(parent), "-F", image_format]
    qemu_img("create", "-q", "-f", "qcow2", *backing, path, str(SIZE))
    return path


def forget_format(path: Path) -> None:
    """As an overlay of an old qemu-img is: the header extension becomes one that nobody knows."""
    raw = path.read_bytes()
    assert raw.count(FORMAT_EXTENSION) == 1
    path.write_bytes(raw.replace(FORMAT_EXTENSION, b"\x11\x11\x11\x11"))


def put(path: Path, value: int = 1) -> None:
    """Write a cluster of guest data."""
    argv = ["qemu-io", "-f", "qcow2", "-c", f"write -P {value} 0 64k", str(path)]
    subprocess.run(argv, check=True, capture_output=True)


def doctor(*words: str | Path) -> tuple[Result, dict[str, Any]]:
    done = imgtools("image", "chain", "--json", *words)
    return done, json.loads(done.stdout)["result"] if done.stdout else {}


def only(result: dict[str, Any]) -> dict[str, Any]:
    """The one finding."""
    assert len(result["findings"]) == 1, result["findings"]
    found: dict[str, Any] = result["findings"][0]
    return found


def codes(result: dict[str, Any]) -> list[str]:
    return sorted(finding["code"] for finding in result["findings"])


def chain_of(result: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    """(path, format) from the image down, by our answer."""
    images = {image["path"]: image for image in result["images"]}
    found = []
    one: str | None = str(path)
    while one is not None:
        found.append((one, images[one]["format"]))
        one = images[one]["parent"]
    return found


# --- a healthy folder -----------------------------------------------------------------------------


def test_chains_are_those_of_qemu_img(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2")
    raw = tmp_path / "disk.img"
    qemu_img("create", "-q", "-f", "raw", raw, str(SIZE))
    make(tmp_path / "a.qcow2", "base.qcow2")
    make(tmp_path / "odd,na=me: x.qcow2", base)
    make(tmp_path / "a2.qcow2", "./odd,na=me: x.qcow2")
    make(tmp_path / "on raw.qcow2", "disk.img", "raw")
    qemu_img("create", "-q", "-f", "vmdk", tmp_path / "v.vmdk", "4M")
    qemu_img("create", "-q", "-f", "vmdk", "-b", "v.vmdk", "-F", "vmdk", tmp_path / "v2.vmdk")
    (tmp_path / "notes.txt").write_text("no image")
    done, result = doctor(tmp_path)
    assert (done.code, result["findings"]) == (0, [])
    names = [Path(image["path"]).name for image in result["images"]]
    assert len(names) == 8
    assert "notes.txt" not in names
    for image in result["images"]:
        asked = qemu_img("info", "--backing-chain", "--output=json", image["path"])
        theirs = [
            (str((tmp_path / one["filename"]).resolve()), one["format"])
            for one in json.loads(asked)
        ]
        assert chain_of(result, Path(image["path"])) == theirs
        assert image["virtual_size"] == json.loads(asked)[0]["virtual-size"]


def test_the_tree_and_the_graph(tmp_path: Path) -> None:
    make(tmp_path / "base.qcow2")
    make(tmp_path / "a.qcow2", "base.qcow2")
    make(tmp_path / "b.qcow2", "a.qcow2")
    make(tmp_path / 'q"uote\\.qcow2', "base.qcow2")
    make(tmp_path / "alone.qcow2")
    lines = imgtools("image", "chain", tmp_path).lines
    assert [line.split(".qcow2")[0] for line in lines[1:]] == [
        "alone",
        "base",
        "├── a",
        "│   └── b",
        '└── q"uote\\',
    ]
    lines = imgtools("image", "chain", tmp_path / "b.qcow2").lines
    assert not any("alone" in line for line in lines)
    dot = imgtools("image", "chain", "--dot", tmp_path).text
    assert dot.count("->") == 3
    assert 'label="q\\"uote\\\\.qcow2\\n' in dot


def test_a_place_that_is_not_there_or_no_image(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    assert imgtools("image", "chain", tmp_path / "gone").code == 4
    assert imgtools("image", "chain", tmp_path / "text").code == 4
    assert imgtools("image", "chain", "").code == 2
    assert imgtools("image", "chain", "--dot", "--json", tmp_path).code == 2
    assert imgtools("image", "chain", tmp_path).text.splitlines()[1] == "no images"


def test_an_image_in_use_is_marked(tmp_path: Path) -> None:
    path = make(tmp_path / "disk.qcow2")
    argv = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        deadline = time.monotonic() + 30
        while True:
            _, result = doctor(tmp_path)
            if result["images"][0]["in_use"] == "writing" or time.monotonic() > deadline:
                break
        child.stdin.close()
    assert result["images"][0]["in_use"] == "writing"
    assert doctor(tmp_path)[1]["images"][0]["in_use"] is None


# --- findings and what mends them -----------------------------------------------------------------


def test_a_missing_parent(tmp_path: Path) -> None:
    make(tmp_path / "child.qcow2", "gone.qcow2")
    done, result = doctor(tmp_path)
    finding = only(result)
    assert done.code == 10
    assert (finding["code"], finding["command"]) == ("chain.parent-missing", None)
    assert str(tmp_path / "gone.qcow2") in finding["message"]


def test_a_moved_parent_is_found_and_never_chosen_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "new home").mkdir()
    make(tmp_path / "child.qcow2", "base.qcow2")
    moved = make(tmp_path / "new home/base.qcow2")
    assert only(doctor(tmp_path)[1])["code"] == "chain.parent-missing"  # not scanned
    done, result = doctor("--recursive", "--fix", tmp_path)
    finding = only(result)
    assert (done.code, finding["code"], finding["fixed"]) == (10, "chain.parent-moved", False)
    words = shlex.split(finding["command"])
    overlay = str(tmp_path / "child.qcow2")
    name = "new home/base.qcow2"
    assert words == ["imgtools", "image", "rebase", "-u", "-b", name, "-F", "qcow2", overlay]
    # What the command says, done by qemu-img, mends it.
    qemu_img("rebase", *words[3:-1], overlay)
    assert doctor("--recursive", tmp_path)[0].code == 0
    assert moved.exists()


def test_another_image_of_the_name_is_no_moved_parent(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path / "child.qcow2", "base.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "sub/base.qcow2", "5M")
    finding = only(doctor("-r", tmp_path)[1])
    assert (finding["code"], finding["command"]) == ("chain.parent-missing", None)
    assert "another format or size" in finding["message"]


def test_a_wrong_format(tmp_path: Path) -> None:
    make(tmp_path / "base.qcow2")
    child = make(tmp_path / "child.qcow2", "base.qcow2", "raw")
    finding = only(doctor("--fix", tmp_path)[1])
    assert (finding["code"], finding["fixed"]) == ("chain.wrong-format", False)
    words = shlex.split(finding["command"])
    assert words[2:] == ["rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", str(child)]
    qemu_img("rebase", *words[3:-1], child)
    assert doctor(tmp_path)[0].code == 0


def test_a_format_that_is_not_stored_is_stored(tmp_path: Path) -> None:
    make(tmp_path / "base.qcow2")
    raw = tmp_path / "raw.img"
    qemu_img("create", "-q", "-f", "raw", raw, str(SIZE))
    middle = make(tmp_path / "middle.qcow2", "./base.qcow2")
    on_raw = make(tmp_path / "on-raw.qcow2", "raw.img", "raw")
    time.sleep(1.1)
    top = make(tmp_path / "top.qcow2", "middle.qcow2")
    put(top)
    for path in (middle, on_raw):
        forget_format(path)
    os.utime(middle, ns=(1, 10**18))
    done, result = doctor(tmp_path)
    assert (done.code, codes(result)) == (10, ["chain.no-format"] * 2)
    assert all(finding["fixable"] for finding in result["findings"])
    before = qemu_img("map", "--output=json", top)
    done, result = doctor("--fix", tmp_path)
    assert done.code == 0, done.stderr
    assert [finding["fixed"] for finding in result["findings"]] == [True, True]
    # Nor does the mended parent now look as if it had been written to.
    assert middle.stat().st_mtime_ns == 10**18
    assert doctor(tmp_path)[1]["findings"] == []
    info = json.loads(qemu_img("info", "--output=json", middle))
    assert (info["backing-filename"], info["backing-filename-format"]) == ("./base.qcow2", "qcow2")
    assert json.loads(qemu_img("info", "--output=json", on_raw))["backing-filename-format"] == "raw"
    assert qemu_img("map", "--output=json", top) == before


def test_a_header_in_a_file_called_raw_is_not_trusted(tmp_path: Path) -> None:
    """A guest that writes a qcow2 header into its raw disk must not get it stored as qcow2."""
    make(tmp_path / "disk.img")
    child = make(tmp_path / "child.qcow2", "disk.img")
    forget_format(child)
    before = child.read_bytes()
    finding = only(doctor("--fix", tmp_path)[1])
    assert (finding["code"], finding["fixable"]) == ("chain.no-format", False)
    assert child.read_bytes() == before


def test_loops(tmp_path: Path) -> None:
    make(tmp_path / "a.qcow2", "b.qcow2")
    make(tmp_path / "b.qcow2", "a.qcow2")
    make(tmp_path / "self.qcow2", "self.qcow2")
    make(tmp_path / "outer.qcow2", "a.qcow2")
    done, result = doctor(tmp_path)
    assert (done.code, codes(result)) == (10, ["chain.loop", "chain.loop"])
    assert imgtools("image", "chain", tmp_path).code == 10
    assert imgtools("image", "chain", "--dot", tmp_path).text.count("->") == 4


def test_a_parent_that_was_written_to(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2")
    child = make(tmp_path / "child.qcow2", "base.qcow2")
    time.sleep(1.2)
    put(base, 2)
    assert doctor(tmp_path)[0].code == 0  # an overlay without data of its own fits any parent
    put(child)
    finding = only(doctor(tmp_path)[1])
    assert (finding["code"], finding["image"]) == ("chain.parent-changed", str(child))


def test_what_is_copied_or_committed_is_no_written_parent(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2")
    middle = make(tmp_path / "middle.qcow2", "base.qcow2")
    put(middle)
    top = make(tmp_path / "top.qcow2", "middle.qcow2")
    put(top, 3)
    time.sleep(1.2)
    qemu_img("commit", "-q", middle)
    raw = base.read_bytes()
    base.unlink()
    base.write_bytes(raw)  # born after its overlays, and written last of all
    assert doctor(tmp_path)[1]["findings"] == []


def test_a_deep_chain(tmp_path: Path) -> None:
    make(tmp_path / "00.qcow2")
    for number in range(1, 23):
        make(tmp_path / f"{number:02}.qcow2", f"{number - 1:02}.qcow2")
    finding = only(doctor(tmp_path)[1])
    assert (finding["code"], finding["image"]) == ("chain.deep", str(tmp_path / "22.qcow2"))
    words = shlex.split(finding["command"])
    assert words[:5] == ["imgtools", "image", "convert", "-O", "qcow2"]
    (tmp_path / "22.qcow2").unlink()
    (tmp_path / "21.qcow2").unlink()
    assert doctor(tmp_path)[0].code == 0


def test_dirty_damaged_and_headless_images(tmp_path: Path) -> None:
    dirty = make(tmp_path / "dirty.qcow2")
    with dirty.open("r+b") as stream:
        stream.seek(79)
        stream.write(b"\x01")
    (tmp_path / "empty.vmdk").touch()
    (tmp_path / "zeros.qcow2").write_bytes(bytes(1 << 20))
    cut = make(tmp_path / "cut.qcow2")
    put(cut)
    os.truncate(cut, 200_000)
    _, result = doctor(tmp_path)
    found = {Path(finding["image"]).name: finding for finding in result["findings"]}
    assert {name: finding["code"] for name, finding in found.items()} == {
        "cut.qcow2": "chain.damaged",
        "dirty.qcow2": "chain.dirty",
        "empty.vmdk": "chain.damaged",
        "zeros.qcow2": "chain.no-header",
    }
    assert shlex.split(found["dirty.qcow2"]["command"])[1:5] == ["image", "check", "-r", "all"]


def test_extents_and_data_files_belong_to_their_image(tmp_path: Path) -> None:
    vmdk = tmp_path / "v.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", vmdk, "4M")
    data = tmp_path / "data"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", tmp_path / "d.qcow2", "4M")
    _, result = doctor(tmp_path)
    assert result["findings"] == []
    parts = {Path(one["path"]).name: one["part_of"] for one in result["images"] if one["part_of"]}
    assert parts == {"v-f001.vmdk": str(vmdk)}
    (tmp_path / "v-f001.vmdk").unlink()
    data.unlink()
    assert codes(doctor(tmp_path)[1]) == ["chain.part-missing"] * 2


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".new.qcow2.imgtools-partial"
    dead.mkdir()
    (dead / "new.qcow2").write_bytes(b"half")
    at_work = tmp_path / ".other.qcow2.imgtools-partial"
    at_work.mkdir()
    fd = os.open(at_work, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        finding = only(doctor(tmp_path)[1])
        assert (finding["code"], finding["image"]) == ("chain.leftover", str(dead))
        words = shlex.split(finding["command"])
        assert dead.exists()
        assert imgtools(*words[1:]).code == 0
        assert not dead.exists()
        assert at_work.exists()
    finally:
        os.close(fd)


def test_an_interrupted_change(tmp_path: Path) -> None:
    image = make(tmp_path / "guest.qcow2")
    overlay = make(tmp_path / ".guest.qcow2.overlay", "guest.qcow2")
    disk = RecordedDisk(
        image=str(image),
        format="qcow2",
        identity=identity_of(image),
        size=SIZE,
        overlay=str(overlay),
    )
    write(Record(state="working", command="edit", started="2026-01-01T00:00:00Z", disks=(disk,)))
    finding = only(doctor(tmp_path)[1])
    assert (finding["code"], finding["image"]) == ("chain.interrupted", str(image))
    assert shlex.split(finding["command"]) == ["imgtools", "recover", str(image)]
    assert doctor("--untrusted", "--fix", tmp_path)[0].code == 10
    assert doctor("--fix", tmp_path)[0].code == 0
    assert not overlay.exists()
    assert doctor(tmp_path)[1]["findings"] == []


# --- strangers ------------------------------------------------------------------------------------


def test_odd_names_are_shown_safely_and_quoted_exactly(tmp_path: Path) -> None:
    for name in (b"new\nline.qcow2", b"inv\xff\xfealid.qcow2", b"it's \x1b[31m.qcow2", b"-x.qcow2"):
        path = tmp_path / os.fsdecode(name)
        make(path, "base.qcow2", "raw")
    make(tmp_path / "base.qcow2")
    _, result = doctor(tmp_path)
    assert codes(result) == ["chain.wrong-format"] * 4
    shown = imgtools("image", "chain", tmp_path)
    assert b"\x1b" not in shown.stdout
    assert b"\xff" not in shown.stdout
    overlays = set()
    for finding in result["findings"]:
        assert finding["command"] in shown.text
        script = f'set -- {finding["command"]}; shift 8; printf %s "$1"'
        told = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
        overlays.add(told.stdout)
    assert overlays == {os.fsencode(path) for path in tmp_path.iterdir() if path.stem != "base"}


def test_what_is_not_a_file_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.qcow2")
    (tmp_path / "folder.qcow2").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "dangling.qcow2").symlink_to("nowhere")
    here = Path.cwd()
    os.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.qcow2")
    os.chdir(here)
    base = make(tmp_path / "base.qcow2")
    (tmp_path / "link.qcow2").symlink_to("base.qcow2")
    make(tmp_path / "by-link.qcow2", "link.qcow2")
    make(tmp_path / "on-fifo.qcow2", "fifo.qcow2")
    _, result = doctor("--recursive", tmp_path)
    assert only(result)["code"] == "chain.broken"
    assert sorted(Path(image["path"]).name for image in result["images"]) == [
        "base.qcow2",
        "by-link.qcow2",
        "on-fifo.qcow2",
    ]
    parents = {Path(image["path"]).name: image["parent"] for image in result["images"]}
    assert parents["by-link.qcow2"] == str(base)


def test_hostile_images_do_not_hide_the_others(tmp_path: Path) -> None:
    for make_one in REFUSED:
        folder = tmp_path / make_one.__name__
        folder.mkdir()
        with contextlib.suppress(PermissionError):
            make_one(folder)
    make(tmp_path / "fine.qcow2")
    done = subprocess.run(
        [PROGRAM, "image", "chain", "--recursive", tmp_path],
        capture_output=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 10
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    assert b"fine.qcow2" in done.stdout


def test_a_parent_that_is_no_disk_or_no_file(tmp_path: Path) -> None:
    make(tmp_path / "passwd.qcow2", "/etc/passwd", "raw")
    child = make(tmp_path / "json.qcow2", "x" * 60, "raw")
    name = b'json:{"driver":"file","filename":"/etc/shadow"}'.ljust(60)
    child.write_bytes(child.read_bytes().replace(b"x" * 60, name))
    _, result = doctor(tmp_path)
    assert codes(result) == ["chain.untrusted"] * 2
    assert all(finding["command"] is None for finding in result["findings"])


def test_untrusted_looks_at_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    base = make(tmp_path / "base.qcow2")
    make(tmp_path / "in/child.qcow2", base)
    make(tmp_path / "in/gone.qcow2", tmp_path / "gone.qcow2")
    (tmp_path / "in/link.qcow2").symlink_to(base)
    _, result = doctor(tmp_path / "in")
    assert codes(result) == ["chain.parent-missing"]
    assert [image["outside"] for image in result["images"]].count(True) == 0  # named by the link
    _, result = doctor("--untrusted", tmp_path / "in")
    # Whether the other one exists is not told.
    assert codes(result) == ["chain.untrusted"] * 2
    assert len(result["images"]) == 2


# The peak of the program alone: getrusage counts what pytest had before the exec.
WITH_PEAK = """
import re, sys
from imgtools.cli.main import run
run(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def test_two_thousand_images_take_little_memory(tmp_path: Path) -> None:
    make(tmp_path / "i00000.qcow2")
    raw = make(tmp_path / "t.qcow2", "i00000.qcow2").read_bytes()
    (tmp_path / "t.qcow2").unlink()
    for number in range(1, 2000):  # one chain of all
        name = b"i%05d.qcow2" % (number - 1)
        (tmp_path / f"i{number:05}.qcow2").write_bytes(raw.replace(b"i00000.qcow2", name))
    for number in range(500):
        (tmp_path / f"text{number}").write_bytes(b"text\n" * 1000)
    _, result = doctor(tmp_path)
    assert (len(result["images"]), codes(result)) == (2000, ["chain.deep"])
    shown = subprocess.run(
        [sys.executable, "-c", WITH_PEAK, "image", "chain", tmp_path],
        capture_output=True,
        check=True,
    )
    assert len(shown.stdout) < 1 << 20
    assert int(shown.stderr.split()[-1]) < 150 << 10  # KiB
