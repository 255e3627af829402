"""The program as a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("imgtools")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.text.splitlines()


def imgtools(*words: str | Path, stdin: bytes = b"", **environment: str) -> Result:
    """Run ``imgtools words``; a traceback in its output fails the test at once."""
    done = subprocess.run(
        [PROGRAM, *words],
        input=stdin,
        capture_output=True,
        check=False,
        env={**os.environ, "TZ": "UTC", "IMGTOOLS_CONFIG": os.devnull, **environment},
    )
    stderr = done.stderr.decode(errors="surrogateescape")
    assert "Traceback" not in stderr, stderr
    assert "internal error" not in stderr, stderr
    return Result(done.returncode, done.stdout, stderr)
