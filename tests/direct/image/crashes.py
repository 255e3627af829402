"""Kill a run at chosen calls, all of them different, and look at what it left.

The run has ``crash.c`` preloaded, which counts the calls that change something in the folder of the
images (writes, renames, ...) in imgtools and in every qemu-img that it starts.  A first run counts
them; each further one dies in one of them: nothing later is done, as after SIGKILL or a power cut
of storage that keeps the order.  A large write may be torn in the middle.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imgtools.cli.main import run as run_here
from tests.appliance.kills import wait_gone

KILLS = 50
"""Kills of one loop, at as many different points, or at all of them where there are fewer."""
assert KILLS >= 50  # what is promised of each verb
_HEAD = struct.Struct("5l")  # struct page of crash.c
_MOST = 65536


Words = Sequence[str | Path]


class Point(NamedTuple):
    """Die in call number ``call``, before it, or (``torn``) when half of it is written."""

    call: int
    torn: bool


@functools.cache
def _library() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="imgtools-crash-"))
    source = Path(__file__).with_name("crash.c")
    argv = ["cc", "-O1", "-shared", "-fPIC", "-o", folder / "crash.so", source, "-ldl"]
    subprocess.run(argv, check=True)
    return folder / "crash.so"


class Crasher:
    """Runs imgtools so that it dies when it changes something in ``folder``.

    The runs are forks of one process that has imported everything: what a run costs is its work.
    """

    def __init__(self, folder: Path) -> None:
        self._page = Path(tempfile.mkdtemp(prefix="imgtools-crash-")) / "page"
        with self._page.open("wb") as stream:
            stream.truncate(_HEAD.size + _MOST)
        environment = {
            **os.environ,
            "IMGTOOLS_CONFIG": os.devnull,
            "LD_PRELOAD": os.fspath(_library()),
            "CRASH_PAGE": os.fspath(self._page),
            "CRASH_FOLDER": f"{folder.resolve()}/",
        }
        self._forker = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def close(self) -> None:
        """End the process, and remove what is shared with the runs."""
        with self._forker:
            assert self._forker.stdin is not None
            self._forker.stdin.close()
        shutil.rmtree(self._page.parent)

    def points(self, words: Words) -> list[Point]:
        """Run ``words`` to the end, which must succeed: the points at which it can die."""
        assert self._run(words, 0, torn=False) == 0
        page = self._page.read_bytes()
        count = _HEAD.unpack_from(page)[2]
        assert 0 < count < _MOST
        found = []
        for call in range(1, count + 1):
            found.append(Point(call, torn=False))
            if page[_HEAD.size + call]:
                found.append(Point(call, torn=True))
        return found

    def kill(self, words: Words, point: Point) -> bool:
        """Run ``words`` and die at ``point``; False if the run ended without getting there."""
        code = self._run(words, point.call, torn=point.torn)
        assert code in (0, -9), code
        if dead := _HEAD.unpack_from(self._page.read_bytes())[3]:
            assert wait_gone(dead)  # a qemu-img that is still dying has its locks
        return code == -9

    def _run(self, words: Words, at: int, *, torn: bool) -> int:
        with self._page.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as page:
            page[:] = _HEAD.pack(at, torn, 0, 0, 0) + bytes(len(page) - _HEAD.size)
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.write(json.dumps([str(word) for word in words]).encode() + b"\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())


@contextlib.contextmanager
def crashing(folder: Path) -> Iterator[Crasher]:
    """A `Crasher` for as long as the block lasts."""
    crasher = Crasher(folder)
    try:
        yield crasher
    finally:
        crasher.close()


def spread(points: list[Point], count: int) -> list[Point]:
    """``count`` of ``points``, or all of them, evenly spread; the first and the last are in."""
    if len(points) <= count:
        return points
    return [points[number * (len(points) - 1) // (count - 1)] for number in range(count)]


def kill_loop(
    words: Words,
    images: list[Path],
    look: Callable[[], str],
    *,
    kills: int = KILLS,
) -> Counter[str]:
    """Kill ``words`` at points spread over its life, from the same images each time.

    ``look`` sees what is left, finishes it, and gives a name to the outcome.
    """
    # In a folder of their own: a copy of an overlay is one more overlay beside it.
    start = images[0].with_name("start")
    start.mkdir()
    for path in images:
        shutil.copyfile(path, start / path.name)
    outcomes: Counter[str] = Counter()
    with crashing(images[0].parent) as crasher:
        for point in spread(crasher.points(words), kills):
            for path in images:
                shutil.copyfile(start / path.name, path)
            killed = crasher.kill(words, point)
            outcomes["killed"] += killed
            outcomes[look()] += 1
    shutil.rmtree(start)
    return outcomes


def here(*words: str | Path) -> int:
    """The exit code of ``imgtools words``, run in this process to be quick."""
    return said(*words)[0]


def said(*words: str | Path) -> tuple[int, str]:
    """As `here`, and all that it printed."""
    heard = io.TextIOWrapper(io.BytesIO(), errors="surrogateescape", write_through=True)
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        code = run_here([str(word) for word in words])
    heard.seek(0)
    text = heard.read()
    assert "internal error" not in text, text
    return code, text
