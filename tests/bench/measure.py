"""Run a program and take its wall time and the peak memory of all its processes together."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Wall time in seconds; peak memory in bytes (proportional set size, summed over the tree).

    Proportional, because an appliance's pages are shared with the page cache of its files and
    would otherwise be counted once a process.
    """

    seconds: float
    peak: int


def measure(argv: list[str], *, env: dict[str, str], stdout: IO[bytes]) -> Measurement:
    """Run ``argv`` to its end.  Raises RuntimeError with its stderr if it fails.

    A program that was installed has its bytecode; a checkout has it after its first run, unless the
    environment forbids that.
    """
    env = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    with subprocess.Popen(
        argv, stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env
    ) as child:
        peak = [0]
        done = threading.Event()
        sampler = threading.Thread(target=_sample, args=(child.pid, peak, done))
        sampler.start()
        _, errors = child.communicate()
        seconds = time.perf_counter() - begin
        done.set()
        sampler.join()
    if child.returncode != 0:
        raise RuntimeError(f"{argv[0]}: exit {child.returncode}: {errors.decode(errors='replace')}")
    return Measurement(seconds=seconds, peak=peak[0])


def _sample(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(SAMPLE_SECONDS):
        peak[0] = max(peak[0], sum(_pss(member) for member in _tree(pid)))


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def _parent(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
