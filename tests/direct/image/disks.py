"""Disks for the tests of images: with real data, on devices, in use; and what qemu-img says."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# No whole number of MiB or cylinders: a VHD would round it up.
SIZE = (12 << 20) + 3 * 512
# Everything that separates, quotes or breaks a line somewhere, and a byte that is not UTF-8.
HARD = os.fsdecode(b"a:b,c=d e\n'\"{}\xff")
FORMATS = ("raw", "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "parallels")
"""What qemu-img can write without a key."""


def make_disk(folder: Path) -> Path:
    """A raw disk: an ext4 with files, a hole, and data up to the last sector."""
    root = folder / "root"
    root.mkdir()
    noise = random.Random(5)
    (root / "noise").write_bytes(noise.randbytes(1_500_000))
    (root / "text").write_text("some text\n" * 30_000)
    disk = folder / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, disk, "8M"], check=True)
    with disk.open("r+b") as stream:
        stream.seek(SIZE - 100_000)
        stream.write(noise.randbytes(100_000))
    return disk


def run(*words: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run(words, check=True, capture_output=True, cwd=cwd, input=stdin)
    return done.stdout.decode(errors="surrogateescape")


def qemu_img(*words: str | Path | int, code: int = 0) -> str:
    """What qemu-img prints; it must end with ``code``."""
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == code, (words, done.stdout[-500:], done.stderr)
    return done.stdout.decode(errors="surrogateescape")


def info(path: Path, image_format: str = "qcow2") -> dict[str, Any]:
    """What ``qemu-img info`` says; it stands in the root folder, as a daemon does."""
    words = ["qemu-img", "info", "--output=json", "-f", image_format, path.absolute()]
    found: dict[str, Any] = json.loads(run(*words, cwd=Path("/")))
    return found


def same(one: Path, one_format: str, other: Path, other_format: str) -> bool:
    """Whether qemu-img compare finds two disks the same, their sizes included."""
    argv = ["qemu-img", "compare", "-f", one_format, "-F", other_format]
    argv += [os.fspath(one.absolute()), os.fspath(other.absolute())]
    done = subprocess.run(argv, capture_output=True, check=False)
    # Of two sizes it only warns if the longer one ends in zeros.
    return done.returncode == 0 and done.stdout == b"Images are identical.\n"


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content(path: Path, image_format: str = "qcow2") -> str:
    """The sha256 of what a guest sees, as qemu-img reads it."""
    copy = path.parent / f"{path.name}.content"
    qemu_img("convert", "-f", image_format, "-O", "raw", path.absolute(), copy.absolute())
    found = digest(copy)
    copy.unlink()
    return found


def leftovers(folder: Path) -> list[str]:
    """Names of our hidden files and folders that are left in a folder."""
    return [path.name for path in folder.iterdir() if ".imgtools" in path.name]


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[Path]:
    """A block device over a file."""
    device = run("losetup", "--find", "--show", *options, path).strip()
    try:
        yield Path(device)
    finally:
        run("losetup", "--detach", device)


@contextmanager
def tmpfs(folder: Path, size: str, *more: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir()
    options = ",".join([f"size={size}", *more])
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def writer(image: Path, image_format: str) -> Iterator[int]:
    """A qemu-nbd that has the image open for writing; yields its process id."""
    socket = image.parent / "nbd.sock"
    argv = ["qemu-nbd", "-f", image_format, "-k", socket, "-t", image.absolute()]
    with subprocess.Popen(argv) as child:
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield child.pid
        finally:
            child.terminate()
            child.wait()
            socket.unlink(missing_ok=True)
