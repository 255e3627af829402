"""tail: as tail(1) would print it in the guest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import PROGRAM, imgtools
from tests.direct.crafted import SPARSE_SIZE, TAIL

pytestmark = pytest.mark.direct
Image = Callable[[str], Path]


@pytest.mark.parametrize("options", [(), ("-n", "0"), ("-n", "3"), ("-n", "100000")])
def test_like_tail_itself(options: tuple[str, ...], image: Image, tmp_path: Path) -> None:
    disk = image("ext4")
    assert imgtools("copy-out", "-a", disk, "/data", tmp_path).code == 0
    names = ["text.txt", "hello.txt", "empty", "big.bin"]
    done = imgtools("tail", *options, "-a", disk, *(f"/data/{name}" for name in names))
    expected = subprocess.run(
        ["tail", *options, *names], cwd=tmp_path / "data", check=True, capture_output=True
    )
    headers = expected.stdout
    for name in names:
        headers = headers.replace(f"==> {name} <==".encode(), f"==> /data/{name} <==".encode())
    assert (done.code, done.stdout) == (0, headers)
    assert imgtools("tail", "-a", disk, "/data/text.txt").stdout.startswith(b"line 19990\n")


def test_the_end_of_a_line_of_4_gib_of_zeros(crafted: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{PROGRAM}' tail -n 1 -a '{crafted}' /sparse | tail -c 20 | od -c"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert b"t   h   e" in done.stdout
    assert SPARSE_SIZE > 4 << 30
    assert TAIL == b"the end"


def test_following_is_explained(crafted: Path) -> None:
    done = imgtools("tail", "-f", "--strict", "-a", crafted, "/etc/hostname")
    assert (done.code, done.stdout) == (0, b"crafted\n")
    assert "adds nothing" in done.stderr
    assert "warning" not in done.stderr


def test_missing_files_and_bad_words(crafted: Path) -> None:
    done = imgtools("tail", "-a", crafted, "/no", "/etc/hostname")
    assert (done.code, done.stdout) == (6, b"==> /etc/hostname <==\ncrafted\n")
    assert imgtools("tail", "-a", crafted).code == 2
    assert imgtools("tail", "-n", "-1", "-a", crafted, "/etc/hostname").code == 2
    assert imgtools("tail", "-a", crafted, "/etc/fifo").code == 6
