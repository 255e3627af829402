"""What the tests of new and resized images share."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def run(*words: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run(words, check=True, capture_output=True, cwd=cwd, input=stdin)
    return done.stdout.decode(errors="surrogateescape")


def info(path: Path, image_format: str = "qcow2") -> dict[str, Any]:
    """What qemu-img info says of an image; it stands in the root folder, as a daemon does."""
    said = run(
        "qemu-img", "info", "--output=json", "-f", image_format, path.absolute(), cwd=Path("/")
    )
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


@contextlib.contextmanager
def loop_device(path: Path, *options: str) -> Iterator[Path]:
    """A block device over a file."""
    device = run("losetup", "--find", "--show", *options, path).strip()
    try:
        yield Path(device)
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a small size."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield folder
    finally:
        run("umount", folder)
