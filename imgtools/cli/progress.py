"""Progress on stderr: a bar on a terminal, JSON lines on request, else nothing."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

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


class Shown(Progress):
    """Progress of a copy whose total size nobody knows before: bytes, files and the rate."""

    def __init__(self, kind: Kind, *, quiet: bool = False) -> None:
        self._json = kind == "json"
        on = kind == "auto" and sys.stderr.isatty() and not quiet
        self._bar: Bar | None = _make_bar() if on else None
        self._task: Any = None
        self._bytes = self._files = 0
        self._last = 0.0

    def __enter__(self) -> Shown:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, files=0)
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

    def restart(self) -> None:
        self._bytes = self._files = 0

    def advance(self, count: int) -> None:
        self._bytes += count
        self._tell()

    def member(self, path: bytes) -> None:  # noqa: ARG002 (a guest's name needs no place here)
        self._files += 1
        self._tell()

    def _tell(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now - self._last < _INTERVAL:
            return
        self._last = now
        if self._bar is not None:
            self._bar.update(self._task, completed=self._bytes, files=self._files)
        elif self._json:
            line = {"type": "progress", "bytes": self._bytes, "files": self._files}
            print(json.dumps(line), file=sys.stderr, flush=True)


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
