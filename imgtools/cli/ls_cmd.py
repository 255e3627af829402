"""``imgtools ls``: virt-ls's formats and options."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import (
    ChecksumCommand,
    DiskArguments,
    Output,
    disk_options,
    mount_option,
    output_options,
    with_options,
)
from imgtools.cli.render import finish, print_json, report_failures, safe_text, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.cli.listing import LineFormat
    from imgtools.model.files import Stat
    from imgtools.model.notices import Notice
    from imgtools.workflow.ls import Entry, ListOptions
    from imgtools.workflow.resumable import ResumableWriter

EPILOG = """\b
Examples:
  imgtools ls -a guest.qcow2 /etc
  imgtools ls -l -d mydomain /var/log
  imgtools ls -lR --csv --checksum=sha256 --times -a guest.qcow2 /etc > files.csv
  imgtools ls -a data.img -m /dev/sda1 /

Names are printed byte for byte into a pipe or file, and made safe on a terminal.
"""

_FORMATS = [
    click.option("-l", "--long", "long_", is_flag=True, help="Modes, owners, sizes, times."),
    click.option("-R", "--recursive", is_flag=True, help="Everything below."),
    click.option("-h", "--human-readable", "human", is_flag=True, help="With -lR: sizes as 1.5G."),
    click.option("--csv", is_flag=True, help="With -lR: comma-separated values."),
    click.option(
        "--checksum",
        "--checksums",
        metavar="[=TYPE]",
        help="With -lR: checksums of files (md5, or crc, sha1, sha224, sha256, sha384, sha512).",
    ),
    click.option("--uid", "--uids", "uids", is_flag=True, help="With -lR: UID and GID."),
    click.option(
        "--time",
        "--times",
        "times",
        is_flag=True,
        help="With -lR: access, modification and change times.",
    ),
    click.option("--time-t", is_flag=True, help="Times as seconds since 1970."),
    click.option("--time-relative", is_flag=True, help="Times as seconds before now."),
    click.option("--time-days", is_flag=True, help="Times as days before now."),
    click.option(
        "--extra-stat",
        "--extra-stats",
        "extra",
        is_flag=True,
        help="With -lR: device, inode, links, rdev, blocks.",
    ),
]


@click.command(
    "ls",
    cls=ChecksumCommand,
    epilog=EPILOG,
    short_help="List files of a guest",
    context_settings={"help_option_names": ["--help"]},
)
@disk_options()
@mount_option
@with_options(_FORMATS)
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST] DIR...")
def command(
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    **flags: Any,
) -> int:
    """List files of a guest: names, or with -l what ls -la shows there, or everything below."""
    if disks.empty:
        raise UsageError(NO_DISK)
    if not args:
        raise UsageError("which directory?", hint="imgtools ls -a IMAGE /etc")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.ls import ls

    options, form = _parse(flags, output)
    sink = _JsonSink() if output.json else _TextSink(form)
    outcome = ls(
        disks, [os.fsencode(word) for word in args], options, sink, mounts=parse_mounts(mounts)
    )
    sink.finish(outcome.engine, outcome.warnings)
    tell_engine(output, outcome.engine, outcome.reason)
    code = finish(output, outcome.warnings)
    return report_failures(outcome.result) or code


def _parse(flags: dict[str, Any], output: Output) -> tuple[ListOptions, LineFormat]:
    from imgtools.cli.listing import LineFormat, Times
    from imgtools.workflow.checksums import checked_type
    from imgtools.workflow.ls import ListOptions

    times: Times | None = "iso" if flags["times"] else None
    for name, value in (("time_t", "time_t"), ("time_relative", "relative"), ("time_days", "days")):
        if flags[name]:
            times = value  # type: ignore[assignment]
    kind = checked_type(flags["checksum"] or "md5") if flags["checksum"] is not None else None
    form = LineFormat(
        csv=flags["csv"],
        human=flags["human"],
        uids=flags["uids"],
        times=times,
        extra=flags["extra"],
        checksum=kind is not None,
        now=int(time.time()),
    )
    _check(flags, form, output)
    return ListOptions(long=flags["long_"], recursive=flags["recursive"], checksum=kind), form


def _check(flags: dict[str, Any], form: LineFormat, output: Output) -> None:
    special = form.csv or form.human or form.uids or form.times or form.extra or form.checksum
    if special and not (flags["long_"] and flags["recursive"]):
        raise UsageError("--csv, -h, --checksum, --uids, --times ... need -lR")
    if form.csv and form.human:
        raise UsageError("-h and --csv cannot be combined", hint="spreadsheets misread 1.5G")
    if output.json and (form.csv or form.human):
        raise UsageError("--json cannot be combined with --csv or -h")


class _TextSink:
    """Lines to stdout, held back until they are certain."""

    def __init__(self, form: LineFormat) -> None:
        from imgtools.workflow.resumable import ResumableWriter

        self._form = form
        self._writer: ResumableWriter = ResumableWriter(sys.stdout.buffer)
        self._show = _safe if sys.stdout.isatty() else _raw

    def restart(self) -> None:
        self._writer.restart()

    def directory(self, entries: Sequence[Entry]) -> None:
        from imgtools.cli.listing import long_directory

        for line in long_directory(entries, now=self._form.now, show=self._show):
            self._writer.write(line + b"\n")

    def entry(self, entry: Entry) -> None:
        from imgtools.cli.listing import long_line

        if entry.stat is None:
            self._writer.write(self._show(entry.name) + b"\n")
        else:
            self._writer.write(long_line(entry, self._form, self._show) + b"\n")

    def finish(self, _engine: str, _warnings: Sequence[Notice]) -> None:
        self._writer.finish()


class _JsonSink:
    """All entries as one JSON document."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []

    def restart(self) -> None:
        self._entries.clear()

    def directory(self, entries: Sequence[Entry]) -> None:
        self._entries += [_json_entry(entry) for entry in entries]

    def entry(self, entry: Entry) -> None:
        self._entries.append(_json_entry(entry))

    def finish(self, engine: str, warnings: Sequence[Notice]) -> None:
        print_json("ls", self._entries, engine=engine, warnings=warnings)


def _json_entry(entry: Entry) -> dict[str, Any]:
    result: dict[str, Any] = {"name": entry.name}
    if entry.stat is None:
        return result
    result |= json_stat(entry.stat, entry.device)
    optional = {"target": entry.target, "checksum": entry.checksum}
    return result | {name: value for name, value in optional.items() if value is not None}


def json_stat(stat: Stat, device: str) -> dict[str, Any]:
    """Metadata of a file as every command's JSON has them."""
    from imgtools.cli.listing import type_letter

    return {
        "type": type_letter(stat),
        "mode": f"{stat.mode & 0o7777:04o}",
        "size": stat.size,
        "uid": stat.uid,
        "gid": stat.gid,
        "nlink": stat.nlink,
        "ino": stat.ino,
        "blocks": stat.blocks,
        "rdev": stat.rdev,
        "device": device,
        "atime_ns": stat.atime_ns,
        "mtime_ns": stat.mtime_ns,
        "ctime_ns": stat.ctime_ns,
    }


def _raw(name: bytes) -> bytes:
    return name


def _safe(name: bytes) -> bytes:
    return safe_text(name).encode()
