"""Progress on stderr: a bar on a terminal, JSON lines on request, else nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import click

from imgtools.workflow.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Kind = Literal["auto", "none", "json"]
_INTERVAL = 0.2  # seconds

progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "none", "json"]),
    default="auto",
    help="Show progress: auto on a terminal, or JSON lines on stderr.",
)


class _Live:
    """A bar, JSON lines or nothing, told of no more often than every `_INTERVAL`."""

    def __init__(self, kind: Kind, make: Callable[[], Bar], *, quiet: bool) -> None:
        self._json = kind == "json"
        on = kind == "auto" and sys.stderr.isatty() and not quiet
        self._bar: Bar | None = make() if on else None
        self._task: Any = None
        self._last = 0.0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._add(self._bar)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell(always=True)
        if self._bar is not None:
            self._bar.stop()

    def _tell(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._last < _INTERVAL:
            return
        self._last = now
        if self._bar is not None:
            self._update(self._bar)
        elif self._json:
            print(json.dumps(self._line(now)), file=sys.stderr, flush=True)

    def _add(self, bar: Bar) -> Any:
        raise NotImplementedError

    def _update(self, bar: Bar) -> None:
        raise NotImplementedError

    def _line(self, now: float) -> dict[str, Any]:
        raise NotImplementedError


class Shown(_Live, Progress):
    """Progress of a copy whose total size nobody knows before: bytes, files and the rate."""

    def __init__(self, kind: Kind, *, quiet: bool = False) -> None:
        super().__init__(kind, _make_bar, quiet=quiet)
        self._bytes = self._files = 0

    def restart(self) -> None:
        self._bytes = self._files = 0

    def advance(self, count: int) -> None:
        self._bytes += count
        self._tell()

    def member(self, path: bytes) -> None:  # noqa: ARG002 (a guest's name needs no place here)
        self._files += 1
        self._tell()

    def _add(self, bar: Bar) -> Any:
        return bar.add_task("", total=None, files=0)

    def _update(self, bar: Bar) -> None:
        bar.update(self._task, completed=self._bytes, files=self._files)

    def _line(self, now: float) -> dict[str, Any]:  # noqa: ARG002 (a rate needs no clock here)
        return {"type": "progress", "bytes": self._bytes, "files": self._files}


class Part(_Live):
    """Progress of a job that knows which part of itself is done; use it in ``with``, and call it.

    ``total``: bytes that the whole stands for, 0 if nobody knows.  JSON lines hold ``part`` (0 to
    1), ``bytes``, ``total``, ``bytes_per_second`` and ``seconds_left`` (null at the start).
    """

    def __init__(self, kind: Kind, total: int, *, name: str = "", quiet: bool = False) -> None:
        super().__init__(kind, _make_part_bar, quiet=quiet)
        self._total, self._name, self._part = total, name, 0.0
        self._began = self._last = time.monotonic()

    def __call__(self, part: float) -> None:
        """``part`` of the whole is done: from 0.0 to 1.0."""
        self._part = part
        self._tell()

    def _add(self, bar: Bar) -> Any:
        return bar.add_task(self._name, total=max(1, self._total))

    def _update(self, bar: Bar) -> None:
        bar.update(self._task, completed=self._part * max(1, self._total))

    def _line(self, now: float) -> dict[str, Any]:
        done, took = int(self._part * self._total), now - self._began
        left = took / self._part - took if self._part else None
        return {
            "type": "progress",
            "name": self._name,
            "part": round(self._part, 4),
            "bytes": done,
            "total": self._total,
            "bytes_per_second": int(done / took) if took else 0,
            "seconds_left": None if left is None else round(left, 1),
        }


def _make_part_bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _make_bar() -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        FileSizeColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    return Progress(
        BarColumn(),
        FileSizeColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[files]} files"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
