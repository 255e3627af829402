"""Small chains of real images, and what qemu-img says of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgtools.image.locks import lock_state
from tests.cli import imgtools

MIB = 1 << 20


def qemu_img(*words: str | Path, code: int = 0) -> str:
    """What qemu-img prints; it must end with ``code``."""
    done = subprocess.run(
        ["qemu-img", *map(str, words)], capture_output=True, check=False, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def make(path: Path, size: int, *, backing: str = "", image_format: str = "") -> Path:
    """A qcow2 image; ``backing`` is stored as it is."""
    below = ["-b", backing, "-F", image_format] if backing else []
    qemu_img("create", "-q", "-f", "qcow2", *below, path, size)
    return path


def write(path: Path, *parts: tuple[int, int, int], image_format: str = "qcow2") -> Path:
    """Write (byte value, offset, length) into an image."""
    words = [word for value, at, size in parts for word in ("-c", f"write -P {value} {at} {size}")]
    argv = ["qemu-io", "-f", image_format, *words, str(path)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return path


def raw(path: Path, size: int, *parts: tuple[int, int, int]) -> Path:
    """A raw image with a boot sector's mark, so that it looks like a disk."""
    with path.open("wb") as stream:
        stream.truncate(size)
        for value, at, length in parts:
            stream.seek(at)
            stream.write(bytes([value]) * length)
        stream.seek(510)
        stream.write(b"\x55\xaa")
    return path


def content(path: Path, image_format: str = "qcow2") -> str:
    """The sha256 of what a guest sees."""
    copy = path.parent / f"{path.name}.content"
    qemu_img("convert", "-f", image_format, "-O", "raw", path, copy)
    with copy.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    copy.unlink()
    return digest


def header(path: Path) -> dict[str, Any]:
    """What qemu-img info says."""
    found: dict[str, Any] = json.loads(qemu_img("info", "-f", "qcow2", "--output=json", path))
    return found


def backing(path: Path) -> tuple[str | None, str | None]:
    """Name and format that a header stores."""
    found = header(path)
    return found.get("backing-filename"), found.get("backing-filename-format")


def check(path: Path, *, marks: bool = False) -> int:
    """Leaked clusters; any corruption fails the test.

    With ``marks``, marks of clusters that do not fit their counts are none.
    """
    argv = ["qemu-img", "check", "-f", "qcow2", str(path)]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    if marks:
        errors = [line for line in errors if not line.startswith("ERROR OFLAG_COPIED")]
    assert not errors, errors[:5]
    assert done.returncode in ((0, 2, 3) if marks else (0, 3)), done.stderr
    return sum(line.startswith("Leaked cluster") for line in lines)


def dirty(path: Path) -> bool:
    """Does the header say that the reference counts are not to be trusted?"""
    return bool(header(path).get("dirty-flag"))


def result(*words: str | Path) -> Any:
    """The result in the JSON of a run that succeeds."""
    done = imgtools(*words, "--json")
    assert done.code == 0, done.stderr
    return json.loads(done.text)["result"]


@contextlib.contextmanager
def guest(path: Path, *, image_format: str = "qcow2") -> Iterator[None]:
    """A real qemu that has the image as its disk."""
    machine = ["-S", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg"]
    drive = f"file={path},format={image_format},if=virtio"
    child = subprocess.Popen(["qemu-system-x86_64", *machine, "-drive", drive])
    try:
        end = time.monotonic() + 30
        while not lock_state(path).held:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
    finally:
        child.kill()
        child.wait()
