"""Kill an imgtools at a call of qemu-img, and finish what it left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.cli import PROGRAM, imgtools
from tests.direct.image.disks import leftovers

# Stands for qemu-img: at its call number $AT it kills the imgtools that started it, before the real
# one runs, while it runs, or after it.
SHIM = """#!/bin/bash
echo >> "$COUNT"
real() { "$REAL" "$@"; }
if [ "$(wc -l < "$COUNT")" = "$AT" ]; then
    case $WHEN in
        before) kill -9 $PPID; exit 1;;
        during) kill -9 $PPID; real "$@"; exit;;
        after) real "$@"; kill -9 $PPID; exit 1;;
    esac
fi
exec "$REAL" "$@"
"""


def killed(folder: Path, at: int, when: str, *words: str | Path) -> int:
    """Run ``imgtools image`` so that it is killed at a call of qemu-img; its status."""
    bin_folder, count = folder / "bin", folder / "count"
    bin_folder.mkdir(exist_ok=True)
    shim = bin_folder / "qemu-img"
    shim.write_text(SHIM)
    shim.chmod(0o755)
    count.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "REAL": shutil.which("qemu-img") or "",
        "COUNT": str(count),
        "AT": str(at),
        "WHEN": when,
    }
    argv: list[Any] = [PROGRAM, "image", *words]
    return subprocess.run(argv, env=environment, capture_output=True, check=False).returncode


def records(folder: Path) -> list[str]:
    """Names of the records of interrupted changes."""
    return [name for name in leftovers(folder) if name.endswith(".imgtools")]


def finish(image: Path) -> None:
    """Recover, once the qemu-img whose imgtools was killed has ended."""
    for _ in range(50):
        done = imgtools("recover", image)
        if done.code == 0:
            return
        assert done.code == 8, done.stderr
        time.sleep(0.1)
    raise AssertionError(done.stderr)
