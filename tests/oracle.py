"""The stock virt-* tools as oracle.

Without KVM one call takes half a minute, and it always says the same of an image that no
longer changes; so what a tool said is kept beside the fixtures, by tool version, arguments and
the image's identity.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "LIBGUESTFS_BACKEND": "direct",
    "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


def cache_folder() -> Path:
    """Where answers are kept."""
    named = os.environ.get("IMGTOOLS_FIXTURE_CACHE")
    base = Path(named) if named else Path.home() / ".cache" / "imgtools-fixtures"
    return base / "oracle"


@functools.cache
def version(tool: str) -> str:
    """What ``tool --version`` says."""
    return subprocess.run(
        [tool, "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()


def virt(tool: str, *arguments: str | Path, dated: bool = False) -> bytes:
    """The standard output of ``tool arguments``.  A failure of the tool fails the test.

    ``dated`` when the answer depends on today's date.
    """
    words = [str(word) for word in arguments]
    identity = [
        [str(word), word.stat().st_size, word.stat().st_mtime_ns]
        for word in arguments
        if isinstance(word, Path)
    ]
    today = [dt.datetime.now(tz=dt.UTC).date().isoformat()] if dated else []
    key = json.dumps([tool, version(tool), words, identity, *today])
    kept = cache_folder() / f"{tool}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if kept.exists():
        return kept.read_bytes()
    done = subprocess.run(
        [tool, *words], env={**os.environ, **ENVIRONMENT}, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{tool} {words}: {done.stderr.decode(errors='replace')}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(done.stdout)
    partial.replace(kept)
    return done.stdout
