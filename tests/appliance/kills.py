"""Run a change of a guest and kill it, with every child, at a chosen point of its life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cli import PROGRAM


@dataclass(frozen=True, slots=True)
class Point:
    """Kill ``delay`` seconds after the phase has begun: ``begin``, ``work`` or ``commit``."""

    phase: str
    delay: float


@dataclass(frozen=True, slots=True)
class Killed:
    """``reached``: the phase was seen before the end; ``ended``: it ended before the kill."""

    reached: bool
    ended: bool


def run_and_kill(words: list[str | Path], image: Path, point: Point) -> Killed:
    """Run ``imgtools words`` and kill it with SIGKILL at ``point``, and everything it started."""
    with subprocess.Popen(
        [PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "IMGTOOLS_CONFIG": os.devnull},
        start_new_session=True,
    ) as child:
        reached = _wait_for(point.phase, image, child)
        deadline = time.monotonic() + point.delay
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(min(0.0005, max(0.0, deadline - time.monotonic())))
        ended = child.poll() is not None
        kill_all(child.pid)
        child.wait()
    return Killed(reached=reached, ended=ended)


def _wait_for(phase: str, image: Path, child: subprocess.Popen[bytes]) -> bool:
    record = image.with_name(f".{image.name}.imgtools")
    pattern = f".{image.name}.imgtools-*.qcow2"
    while child.poll() is None:
        if phase == "begin":
            return True
        if phase == "work" and next(image.parent.glob(pattern), None) is not None:
            return True
        if phase == "commit":
            with contextlib.suppress(OSError):
                if b'"committing"' in record.read_bytes():
                    return True
        time.sleep(0.0002)
    return False


def kill_all(pid: int) -> None:
    """SIGKILL the process and all its descendants, parents stopped first so that none slips out."""
    todo, tree = [pid], []
    while todo:
        one = todo.pop()
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
        tree.append(one)
        todo += children_of(one)
    for one in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    for one in tree[1:]:
        wait_gone(one)


def children_of(pid: int) -> list[int]:
    """The child processes of all threads of ``pid``."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def wait_gone(pid: int) -> bool:
    """True once the process has ended (a zombie has), every thread of it; False after ten seconds.

    A thread that is still ending keeps the files open, and so their locks.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if set(_states(pid)) <= {"Z", "X"}:
            return True
        time.sleep(0.005)
    return False


def _states(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found
