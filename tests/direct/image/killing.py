"""Kill an imgtools at a call of qemu-img, and finish what it left."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cli import PROGRAM, imgtools
from tests.direct.image.disks import leftovers

# Stands for qemu-img: at its call number $AT it kills the imgtools that started it, before the real
# one runs, while it runs, or after it; or it fills the disk of the file $FILL before.
SHIM = """#!/bin/bash
echo >> "$COUNT"
real() { "$REAL" "$@"; }
if [ "$(wc -l < "$COUNT")" = "$AT" ]; then
    case $WHEN in
        full) cat /dev/zero > "$FILL" 2>/dev/null;;
        before) kill -9 $PPID; exit 1;;
        during) kill -9 $PPID; real "$@"; exit;;
        after) real "$@"; kill -9 $PPID; exit 1;;
    esac
fi
exec "$REAL" "$@"
"""


def killed(folder: Path, at: int, when: str, *words: str | Path) -> int:
    """Run ``imgtools image`` so that it is killed at a call of qemu-img; its status."""
    return _disturbed(folder, at, when, words).returncode


def filled(folder: Path, at: int, fill: Path, *words: str | Path) -> tuple[int, str]:
    """Run ``imgtools image`` so that the file ``fill`` takes all space from a call of qemu-img on.

    Returns its status and what it said.
    """
    done = _disturbed(folder, at, "full", words, FILL=str(fill))
    return done.returncode, done.stderr.decode()


def _disturbed(
    folder: Path, at: int, when: str, words: Sequence[str | Path], **more: str
) -> subprocess.CompletedProcess[bytes]:
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
        **more,
    }
    argv: list[Any] = [PROGRAM, "image", *words]
    return subprocess.run(argv, env=environment, capture_output=True, check=False)


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
