"""``imgtools log``: the journal of a guest, or its syslog."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, mount_option, output_options
from imgtools.cli.render import finish, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.guest.linux.journal import JournalEntry
    from imgtools.model.notices import Notice
    from imgtools.workflow.log import LogFilter

EPILOG = """\b
Examples:
  imgtools log -a guest.qcow2 | less
  imgtools log -d mydomain -u ssh -p warning --since yesterday
  imgtools log -a guest.qcow2 --boot -1 -n 100
  imgtools log -a guest.qcow2 --since '2026-11-01 08:00' --json

\b
Times: 2026-11-24, 2026-11-24 08:00[:30], 08:00, @SECONDS, now, today, yesterday,
or ago: -2h, -30min, -7days.
"""

_PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_ALSO = {"error": 3, "warn": 4, "panic": 0}


@click.command(
    "log",
    epilog=EPILOG,
    short_help="Print the journal of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@click.option("-u", "--unit", "units", multiple=True, metavar="UNIT", help="Of this unit (* any).")
@click.option(
    "-p", "--priority", metavar="LEVEL[..LEVEL]", help="This or worse: emerg (0) to debug (7)."
)
@click.option("-S", "--since", metavar="TIME", help="Not older.")
@click.option("-U", "--until", metavar="TIME", help="Not newer.")
@click.option("-b", "--boot", metavar="N|ID", help="Of one boot: 0 the last, -1 the one before.")
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), help="Only the last entries.")
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]")
def command(
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    **flags: Any,
) -> int:
    """Print the systemd journal of a guest as journalctl does, or else its syslog.

    Entries of all journal files appear by time, in this host's time zone.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    if args:
        raise UsageError(f"{args[0]}: one word too many", hint="imgtools log -a IMAGE")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.log import log

    sink = _JsonSink() if output.json else _TextSink()
    outcome = log(disks, _filter(flags), sink, mounts=parse_mounts(mounts))
    sink.finish(outcome.engine, outcome.warnings)
    tell_engine(output, outcome.engine, outcome.reason)
    return finish(output, outcome.warnings)


def _filter(flags: dict[str, Any]) -> LogFilter:
    from imgtools.cli.times import parse_time
    from imgtools.workflow.log import LogFilter

    now = datetime.now().astimezone()
    limits: dict[str, int] = {}
    for name in ("since", "until"):
        if flags[name] is not None:
            limits[name] = parse_time(flags[name], now, option=f"--{name}")
    return LogFilter(
        units=flags["units"],
        priorities=_priorities(flags["priority"]) if flags["priority"] is not None else None,
        boot=flags["boot"],
        last=flags["lines"],
        **limits,
    )


def _priorities(text: str) -> tuple[int, int]:
    first, dots, second = text.partition("..")
    if not dots:
        return 0, _priority(first)
    low, high = sorted((_priority(first), _priority(second)))
    return low, high


def _priority(text: str) -> int:
    word = text.strip().lower()
    if word in _PRIORITIES:
        return _PRIORITIES.index(word)
    if word in _ALSO:
        return _ALSO[word]
    if re.fullmatch(r"[0-7]", word):
        return int(word)
    raise UsageError(f"--priority {text}: unknown", hint=f"known: {', '.join(_PRIORITIES)}, 0-7")


class _TextSink:
    """journalctl's lines on stdout, held back until they are certain."""

    def __init__(self) -> None:
        from imgtools.workflow.resumable import ResumableWriter

        self._writer = ResumableWriter(sys.stdout.buffer)
        self._boot: str | None = None

    def restart(self) -> None:
        self._writer.restart()
        self._boot = None

    def entry(self, entry: JournalEntry) -> None:
        from imgtools.cli.log_text import short_line

        line = short_line(entry)
        if line is None:
            return
        if self._boot not in (None, entry.boot_id):
            self._writer.write(b"-- Boot %s --\n" % entry.boot_id.encode())
        self._boot = entry.boot_id
        self._writer.write(line + b"\n")

    def text(self, data: bytes) -> None:
        self._writer.write(data)

    def finish(self, _engine: str, _warnings: Sequence[Notice]) -> None:
        self._writer.finish()


class _JsonSink:
    """Entries with all of their fields; of a text log, its lines."""

    def __init__(self) -> None:
        from imgtools.cli.json_stream import JsonStream

        self._stream = JsonStream("log")
        self._rest = b""

    def restart(self) -> None:
        self._stream.restart()
        self._rest = b""

    def entry(self, entry: JournalEntry) -> None:
        self._stream.add(
            {
                "time_ns": entry.realtime * 1000,
                "monotonic_ns": entry.monotonic * 1000,
                "boot_id": entry.boot_id,
                "fields": {
                    name: values[0] if len(values) == 1 else values
                    for name, values in entry.fields.items()
                },
            }
        )

    def text(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._stream.add({"line": line})

    def finish(self, engine: str, warnings: Sequence[Notice]) -> None:
        if self._rest:
            self._stream.add({"line": self._rest})
        self._stream.finish("entries", engine=engine, warnings=warnings)
