"""`imgtools image compare` and `map` beside qemu-img's."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli import imgtools

pytestmark = pytest.mark.direct

SIZE = 8 << 20


def qemu(program: str, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], check=check, capture_output=True, text=True)


def make(path: Path, *commands: str, size: int = SIZE, image_format: str = "qcow2") -> Path:
    qemu("qemu-img", "create", "-q", "-f", image_format, path, str(size))
    for command in commands:
        qemu("qemu-io", "-f", image_format, "-c", command, path)
    return path


def compared(*words: str | Path) -> tuple[int, dict[str, Any]]:
    done = imgtools("image", "compare", "--json", *words)
    return done.code, json.loads(done.stdout)["result"] if done.stdout else {}


CASES: list[tuple[list[str], list[str], int, int]] = [
    ([], [], SIZE, SIZE),
    (["write -P 1 1M 1M"], ["write -P 1 1M 1M"], SIZE, SIZE),
    (["write -P 1 1M 1M"], ["write -P 1 1M 1M", "write -P 2 5M 512"], SIZE, SIZE),
    (["write -P 0 1M 1M"], [], SIZE, SIZE),  # only the allocation differs
    (["write -P 1 1M 1M"], ["write -P 1 1M 1M"], SIZE, SIZE * 2),
    ([], ["write -P 3 10M 512"], SIZE, SIZE * 2),
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_answer_is_that_of_qemu_img(
    tmp_path: Path, case: tuple[list[str], list[str], int, int], strict: bool
) -> None:
    a = make(tmp_path / "a,=b: c.qcow2", *case[0], size=case[2])
    b = make(tmp_path / "b.qcow2", *case[1], size=case[3])
    flag = ["-s"] if strict else []
    theirs = qemu("qemu-img", "compare", *flag, f"file:{a}", b, check=False)
    code, result = compared(*flag, a, b)
    assert code == {0: 0, 1: 10}[theirs.returncode], theirs.stderr
    assert result["same"] == (theirs.returncode == 0)
    assert result["sizes"] == [case[2], case[3]]
    offset = re.search(r"[Oo]ffset (\d+)", theirs.stdout)
    assert (result["difference"] or {}).get("offset") == (int(offset[1]) if offset else None)


def test_another_size_is_a_warning_and_no_difference(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.qcow2"), make(tmp_path / "b.qcow2", size=SIZE * 2)
    done = imgtools("image", "compare", a, b)
    assert (done.code, done.text) == (0, "the same\n")
    assert f"{SIZE} bytes" in done.stderr
    for flag in ("-s", "--strict"):
        done = imgtools("image", "compare", flag, a, b)
        assert (done.code, "sizes of" in done.text) == (10, True)


def test_formats_and_chains(tmp_path: Path) -> None:
    a = make(tmp_path / "a.qcow2", "write -P 5 0 2M")
    raw = tmp_path / "a.data"
    qemu("qemu-img", "convert", "-O", "raw", a, raw)
    qemu("qemu-img", "convert", "-O", "vmdk", a, tmp_path / "a.vmdk")
    overlay = tmp_path / "o.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", a, "-F", "qcow2", overlay)
    assert compared(a, "-F", "raw", raw)[0] == 0
    assert compared("-f", "raw", raw, tmp_path / "a.vmdk")[0] == 0
    assert compared(overlay, a)[0] == 0
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 6 3M 512", overlay)
    assert compared(overlay, a) == (
        10,
        {"same": False, "difference": {"kind": "content", "offset": 3 << 20}, "sizes": [SIZE] * 2},
    )


def test_a_guest_cannot_choose_the_format_of_a_raw_disk(tmp_path: Path) -> None:
    """The header that it wrote is compared as the bytes that it is."""
    secret = make(tmp_path / "secret.img", "write -P 7 0 1M", image_format="raw")
    posing = tmp_path / "guest.raw"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", posing)
    posing.write_bytes(posing.read_bytes().ljust(SIZE, b"\0"))
    assert compared(posing, secret)[1]["difference"] == {"kind": "content", "offset": 0}


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a = make(tmp_path / "a.qcow2")
    assert imgtools("image", "compare", a, tmp_path / "gone").code == 4
    assert imgtools("image", "compare", a).code == 2
    assert imgtools("image", "compare", "-f", "nonsense", a, a).code == 2
    (tmp_path / "bad.qcow2").write_bytes(b"QFI\xfb" + bytes(500))
    assert imgtools("image", "compare", a, tmp_path / "bad.qcow2").code == 4


def test_progress(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.qcow2", "write 0 8M"), make(tmp_path / "b.qcow2", "write 0 8M")
    done = imgtools("image", "compare", "--progress", "json", a, b)
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["name"], last["part"], last["total"]) == ("compare", 1.0, SIZE)


# --- map ------------------------------------------------------------------------------------------


def test_the_map_is_that_of_qemu_img(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2", "write -P 1 0 1M", "write -z 2M 1M")
    overlay = tmp_path / "o,dd: =x.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 2 512k 64k", overlay)
    raw = make(tmp_path / "d.raw", "write -P 1 1M 64k", image_format="raw")
    packed = tmp_path / "packed.qcow2"
    qemu("qemu-img", "convert", "-c", "-O", "qcow2", base, packed)
    for path in (base, overlay, raw, packed):
        kind = "raw" if path == raw else "qcow2"
        for words in (
            [],
            ["--start-offset=65536"],
            ["--max-length=65536"],
            ["--start-offset=512K", "--max-length=1M"],
        ):
            argv = ["map", "--output=json", "-f", kind, *words, f"file:{path}"]
            theirs = json.loads(qemu("qemu-img", *argv).stdout)
            done = imgtools("image", "map", "--json", *words, path)
            assert json.loads(done.stdout)["result"]["extents"] == theirs


def test_the_table(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2", "write -P 1 0 1M")
    packed = tmp_path / "packed.qcow2"
    qemu("qemu-img", "convert", "-c", "-O", "qcow2", base, packed)
    overlay = tmp_path / "over\nlay.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", packed, "-F", "qcow2", overlay)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", overlay)
    rows = [line.split() for line in imgtools("image", "map", overlay).lines]
    assert rows[0] == ["START", "LENGTH", "KIND", "LAYER", "AT", "FILE"]
    name = str(overlay).replace("\n", "\\x0a")
    assert rows[1] == ["0", "65536", "data", "0", rows[1][4], name]
    assert rows[2] == ["65536", str((1 << 20) - 65536), "data", "1", "-", str(packed)]
    assert rows[3][2:] == ["none", "-", "-"]


@pytest.mark.parametrize(
    "words",
    [
        ["--max-length", "0"],
        ["--max-length=-1"],
        ["--start-offset", "8M"],
        ["--start-offset", "9223372036854775808"],
        ["--start-offset", "x"],
    ],
)
def test_senseless_places(tmp_path: Path, words: list[str]) -> None:
    done = imgtools("image", "map", *words, make(tmp_path / "a.qcow2"))
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
