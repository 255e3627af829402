"""Small disks with real data, and what qemu-img itself says of them."""

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


def qemu_img(*words: str | Path) -> str:
    """Run qemu-img and return what it printed; it must succeed."""
    done = subprocess.run(["qemu-img", *words], capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.decode()


def info(path: Path, image_format: str) -> dict[str, Any]:
    """``qemu-img info``."""
    found: dict[str, Any] = json.loads(
        qemu_img("info", "--output=json", "-f", image_format, path.absolute())
    )
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


def raw_digest(path: Path, image_format: str, scratch: Path) -> str:
    """The sha256 of the disk in raw form, as qemu-img reads it."""
    qemu_img("convert", "-f", image_format, "-O", "raw", path.absolute(), scratch)
    return digest(scratch)


def leftovers(folder: Path) -> list[str]:
    """Partial folders."""
    return [one.name for one in folder.iterdir() if "imgtools" in one.name]


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
