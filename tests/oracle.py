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
import sys
from collections.abc import Sequence
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


ATTEMPTS = 5


def virt(
    tool: str, *arguments: str | Path, dated: bool = False, chance: bytes | None = None
) -> bytes:
    """The standard output of ``tool arguments``.  A failure of the tool fails the test.

    ``dated`` when the answer depends on today's date; ``chance`` stands in one that depends on
    how the threads of the appliance's kernel ran: the tool is asked again, and it is not kept.
    """
    today = [dt.datetime.now(tz=dt.UTC).date().isoformat()] if dated else []
    return _answer(tool, [tool], [version(tool), *today], arguments, chance)


def guestfs(script: str, *arguments: str | Path) -> bytes:
    """The standard output of a Python script that asks libguestfs's own binding.

    What guestfish's wrappers (virt-copy-out, virt-tar-out) do is one call of the library.
    """
    import guestfs as binding

    release = str(binding.GuestFS(python_return_dict=True).version())
    return _answer("guestfs", [sys.executable, "-c", script], [release], arguments)


def _answer(
    name: str,
    command: list[str],
    versions: list[str],
    arguments: Sequence[str | Path],
    chance: bytes | None = None,
) -> bytes:
    """What the command said when it was last asked the same, or says now."""
    words = [str(word) for word in arguments]
    identity = [
        [str(word), word.stat().st_size, word.stat().st_mtime_ns]
        for word in arguments
        if isinstance(word, Path)
    ]
    question = [] if command == [name] else command[1:]
    key = json.dumps([name, versions[0], words, identity, *versions[1:], *question])
    kept = cache_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if kept.exists() and (chance is None or chance not in kept.read_bytes()):
        return kept.read_bytes()
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            [*command, *words], env={**os.environ, **ENVIRONMENT}, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{name} {words}: {done.stderr.decode(errors='replace')}"
        if chance is None or chance not in done.stdout:
            break
    else:
        raise AssertionError(f"{name} {words}: {chance!r} in each of {ATTEMPTS} answers")
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(done.stdout)
    partial.replace(kept)
    return done.stdout
