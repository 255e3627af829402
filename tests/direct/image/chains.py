"""Small chains of real images."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgtools.image.locks import lock_state
from tests.cli import imgtools
from tests.direct.image.disks import info, qemu_img

MIB = 1 << 20


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


def backing(path: Path) -> tuple[str | None, str | None]:
    """Name and format that a header stores."""
    found = info(path)
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
    return bool(info(path).get("dirty-flag"))


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
