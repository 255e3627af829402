"""cat: bytes exact, bounded, and never out of the guest."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import ODD_NAMES, SPARSE_SIZE, TAIL

pytestmark = pytest.mark.direct


def test_bytes_are_exact_and_in_order(crafted: Path) -> None:
    result = imgtools("cat", "-a", crafted, "/etc/hostname", "/binary", "/etc/empty", "/etc/link")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == b"crafted\n" + bytes(range(256)) * 5000 + b"crafted\n"


def test_the_positional_form(crafted: Path) -> None:
    assert imgtools("cat", crafted, "/etc/hostname").stdout == b"crafted\n"


def test_mounting_instead_of_inspecting(crafted: Path) -> None:
    result = imgtools(
        "cat", "-a", crafted, "-m", "/dev/sda:/mnt", "-m", "/dev/sda", "/etc/hostname"
    )
    assert result.code == 0
    assert result.stdout == b"crafted\n"
    under = imgtools("cat", "-a", crafted, "-m", "/dev/sda:/", "/etc/hostname")
    assert under.stdout == b"crafted\n"
    wrong = imgtools("cat", "--engine", "direct", "-a", crafted, "-m", "/dev/sdb1", "/x")
    assert (wrong.code, wrong.stdout) == (6, b"")
    assert "there are: /dev/sda (ext4)" in wrong.stderr


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: bytes, crafted: Path) -> None:
    done = subprocess.run(
        [PROGRAM, b"cat", b"-a", bytes(crafted), b"/odd/" + name], capture_output=True, check=True
    )
    assert done.stdout == name


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/etc/missing", "/etc/missing: no such file"),
        ("/etc/escape", "no such file"),
        ("/etc/host-passwd", "no such file"),
        ("/etc/loop", "too many symbolic links"),
        ("/etc", "is a directory"),
        ("/etc/fifo", "is not a regular file"),
        ("/etc/hostname/x", "not a directory"),
        ("etc/hostname", "not an absolute path"),
    ],
)
def test_what_is_no_file_is_exit_6_and_one_line(path: str, complaint: str, crafted: Path) -> None:
    result = imgtools("cat", "--engine", "direct", "-a", crafted, path)
    assert (result.code, result.stdout) == (6, b"")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_missing_file_stops_no_other(crafted: Path) -> None:
    result = imgtools("cat", "-a", crafted, "/etc/no1", "/etc/hostname", "/etc/no2")
    assert result.code == 6
    assert result.stdout == b"crafted\n"
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()] == [
        "/etc/no1",
        "/etc/no2",
    ]


def test_a_sparse_file_beyond_4_gib_streams(crafted: Path) -> None:
    peak = 0
    with subprocess.Popen(
        [PROGRAM, "cat", "--engine", "direct", "-a", crafted, "/sparse"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        size, tail = 0, b""
        while chunk := child.stdout.read(1 << 20):
            size += len(chunk)
            tail = (tail + chunk)[-len(TAIL) :]
            peak = max(peak, peak_memory(child.pid))
    assert (child.returncode, size, tail) == (0, SPARSE_SIZE, TAIL)
    assert 10 << 20 < peak < 200 << 20


def peak_memory(pid: int) -> int:
    """Bytes; of this process since its exec (getrusage counts pytest's own before it as well)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0  # it has ended


def test_a_reader_that_leaves_early(crafted: Path) -> None:
    script = f"'{PROGRAM}' cat -a '{crafted}' /sparse | head -c 5 | wc -c; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "141"]
    assert done.stderr == ""


def test_a_full_disk_is_one_line(crafted: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (the real thing)
        done = subprocess.run(
            [PROGRAM, "cat", "-a", crafted, "/etc/hostname"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "imgtools: cannot write the output: No space left on device\n"


def test_no_operating_system_points_at_m(tmp_path: Path) -> None:
    from tests.direct.crafted import make_ext4

    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes").write_text("hello", encoding="utf-8")
    disk = make_ext4(tmp_path / "data", tmp_path / "data.img", 8 << 20)
    result = imgtools("cat", "-a", disk, "/notes")
    assert (result.code, result.stdout) == (3, b"")
    assert "-m DEVICE" in result.stderr
    assert imgtools("cat", "-a", disk, "-m", "/dev/sda", "/notes").stdout == b"hello"


def test_damage_half_way_goes_on_where_it_stopped(
    crafted: Path, damaged_half_way: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from imgtools.model.disks import DiskRequest
    from imgtools.workflow import resumable
    from imgtools.workflow.cat import cat
    from imgtools.workflow.selection import DiskArguments

    for hold_back in (0, 1 << 30):
        damaged_half_way.clear()
        monkeypatch.setattr(resumable.ResumableWriter.__init__, "__kwdefaults__", {
            "hold_back": hold_back})  # fmt: skip
        sink = io.BytesIO()
        arguments = DiskArguments(disks=(DiskRequest(path=crafted, format="raw"),))
        outcome = cat(arguments, [b"/etc/hostname", b"/binary", b"/etc/hostname"], sink)
        assert (outcome.result, outcome.reason, len(damaged_half_way)) == ([], "a block is bad", 2)
        expected = b"crafted\n" + bytes(range(256)) * 5000 + b"crafted\n"
        assert hashlib.sha256(sink.getvalue()).digest() == hashlib.sha256(expected).digest()
