"""A small disk to be changed, and what a change of it leaves."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import fixtures
from tests.cli import Result, imgtools

MOUNT = ("-m", "/dev/sda")
MIB = 1 << 20


def small(folder: Path, image_format: str = "raw", *options: str) -> Path:
    """A small guest disk, an ext4 without a system, of a format."""
    path = folder / f"disk.{image_format}"
    words = ["qemu-img", "convert", "-O", image_format, *options, str(fixtures.get("ext4"))]
    subprocess.run([*words, str(path)], check=True)
    return path


def write(image: Path, text: str = "new", *more: str, **environment: str) -> Result:
    return imgtools("write", "-a", image, *MOUNT, "/file", "--content", text, *more, **environment)


def content(image: Path, path: str = "/file") -> bytes:
    done = imgtools("cat", "-q", "--engine", "direct", "-a", image, *MOUNT, path)
    assert done.code == 0, done.stderr
    return done.stdout


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def left_beside(image: Path) -> list[str]:
    return sorted(path.name for path in image.parent.glob(f".{image.name}*"))


def check_refused(done: Result, *words: str) -> None:
    """Exit 8 and one line that says who or what."""
    assert done.code == 8, done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def content_of(image: Path, path: str) -> bytes:
    return imgtools("cat", "-q", "-a", image, *MOUNT, path).stdout
