"""``imgtools diff``: virt-diff's options, and two that need no second image."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import click

from imgtools.cli.options import (
    ChecksumCommand,
    DiskArguments,
    Output,
    disk_options,
    mount_option,
    output_options,
    second_disk_options,
    with_options,
)
from imgtools.cli.render import finish, safe_text, tell_engine
from imgtools.errors import EXIT_FINDINGS, EXIT_OK, UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.cli.listing import LineFormat, Times
    from imgtools.workflow.diff import Difference, DiffOptions, DiffResult, Side
    from imgtools.workflow.selection import Selection

EPILOG = """\b
Examples:
  imgtools diff -a before.qcow2 -A after.qcow2
  imgtools diff --content -d oldguest -D newguest
  imgtools diff overlay.qcow2 --backing
  imgtools diff guest.qcow2 --snapshot before-update --json
  imgtools diff -a old.img -A new.img -m /dev/sda1 --csv

\b
Lines are virt-diff's: "-" only in the old guest, "+" only in the new one, "=" other
content; "#" says which metadata differ between the "-" and "+" above it.
Exit status: 0 nothing differs, 10 something does.
"""

_FORMATS = [
    click.option("--backing", is_flag=True, help="Compare with the image's own backing file."),
    click.option(
        "--snapshot", metavar="NAME|ID", help="Compare with an internal snapshot of the image."
    ),
    click.option("--content", "text", is_flag=True, help="Text diffs of what changed."),
    click.option(
        "--quick", is_flag=True, help="Read no file: sizes and times say what has changed."
    ),
    click.option(
        "--read-all",
        is_flag=True,
        help="Read also what inode times say is untouched since the backing file or snapshot; "
        "a guest with a wrong clock, or an intruder, may forge them.",
    ),
    click.option("--no-facts", is_flag=True, help="Files only, not packages, users, services."),
    click.option("--all", "all_", is_flag=True, help="--extra-stats --times --uids --xattrs."),
    click.option("--atime", is_flag=True, help="Last accesses count as well."),
    click.option(
        "--checksum",
        "--checksums",
        metavar="[=TYPE]",
        help="Show checksums (md5, or crc, sha1, sha224, sha256, sha384, sha512).",
    ),
    click.option("--csv", is_flag=True, help="Comma-separated values, files only."),
    click.option(
        "--dir-links", "--dir-nlinks", is_flag=True, help="Folders' numbers of links count."
    ),
    click.option("--dir-times", "--dir-time", is_flag=True, help="Folders' times count."),
    click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes as 1.5G."),
    click.option("--uids", "--uid", is_flag=True, help="Show UID and GID."),
    click.option("--times", "--time", is_flag=True, help="Show times; those of files count."),
    click.option("--time-t", is_flag=True, help="Times as seconds since 1970."),
    click.option("--time-relative", is_flag=True, help="Times as seconds before now."),
    click.option("--time-days", is_flag=True, help="Times as days before now."),
    click.option("--extra-stats", "--extra-stat", "extra", is_flag=True, help="Inodes and more."),
    click.option("--xattrs", "--xattr", is_flag=True, help="Show extended attributes."),
]


@click.command(
    "diff",
    cls=ChecksumCommand,
    epilog=EPILOG,
    short_help="Compare two guests, or a guest with its past",
    context_settings={"help_option_names": ["--help"]},
)
@disk_options()
@second_disk_options
@mount_option
@with_options(_FORMATS)
@output_options()
@click.argument("args", nargs=-1, metavar="[OLD] [NEW]")
def command(
    disks: DiskArguments,
    second: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    **flags: Any,
) -> int:
    """Compare the files of two guests, or of a guest and an earlier state of it.

    Files are compared by what is in them, and by mode, owner and extended attributes; below
    them, what changed in packages, users, services and kernels.
    """
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.diff import diff

    if args:
        raise UsageError(f"{args[0]}: one word too many", hint="imgtools diff OLD NEW")
    options, form = _parse(flags, output)
    old, new, arguments = _select(disks, second, flags)
    sink: _Sink = _JsonSink() if output.json else _TextSink(form)
    result = diff(old, new, arguments, options, sink, mounts=parse_mounts(mounts))
    sink.finish(result)
    for side, engine, reason in zip((old, new), result.engines, result.reasons, strict=True):
        tell_engine(output, engine, reason, guest=side.name)
    code = finish(output, result.warnings)
    return code or (EXIT_FINDINGS if result.differ else EXIT_OK)


def _select(
    disks: DiskArguments, second: DiskArguments, flags: dict[str, Any]
) -> tuple[Selection, Selection, DiskArguments]:
    from imgtools.workflow.diff import select_backing, select_pair, select_snapshot

    if disks.empty:
        raise UsageError(NO_DISK)
    snapshot = flags["snapshot"]
    ways = [not second.empty, flags["backing"], snapshot is not None]
    if sum(ways) != 1:
        problem = "compare with what?" if not any(ways) else "compare with one thing only"
        raise UsageError(problem, hint="-A NEW, -D NEW, --backing or --snapshot NAME")
    if flags["backing"]:
        return *select_backing(disks), disks
    if snapshot is not None:
        return *select_snapshot(disks, snapshot), disks
    return *select_pair(disks, second), disks


def _parse(flags: dict[str, Any], output: Output) -> tuple[DiffOptions, LineFormat]:
    from imgtools.cli.listing import LineFormat
    from imgtools.workflow.checksums import checked_type
    from imgtools.workflow.diff import DiffOptions

    every = flags["all_"]
    times = _times(flags, every=every)
    kind = checked_type(flags["checksum"]) if flags["checksum"] is not None else None
    if flags["csv"] and flags["human"]:
        raise UsageError("-h and --csv cannot be combined", hint="spreadsheets misread 1.5G")
    if output.json and (flags["csv"] or flags["human"]):
        raise UsageError("--json cannot be combined with --csv or -h")
    if flags["quick"] and flags["text"]:
        raise UsageError("--quick reads no file: --content cannot be combined with it")
    if flags["quick"] and flags["read_all"]:
        raise UsageError("--quick reads no file: --read-all cannot be combined with it")
    form = LineFormat(
        csv=flags["csv"],
        plain=flags["csv"],
        human=flags["human"],
        uids=flags["uids"] or every,
        times=times,
        atime=flags["atime"],
        extra=flags["extra"] or every,
        checksum=kind is not None,
        now=int(time.time()),
    )
    options = DiffOptions(
        read=not flags["quick"],
        trust=not flags["read_all"],
        text=flags["text"] and not flags["csv"],
        xattrs=flags["xattrs"] or every,
        times=times is not None,
        atime=flags["atime"],
        dir_times=flags["dir_times"],
        dir_links=flags["dir_links"],
        checksum=kind,
        facts=not flags["no_facts"] and not flags["csv"],
    )
    return options, form


def _times(flags: dict[str, Any], *, every: bool) -> Times | None:
    times: Times | None = "iso" if flags["times"] or every else None
    named: list[tuple[str, Times]] = [
        ("time_t", "time_t"),
        ("time_relative", "relative"),
        ("time_days", "days"),
    ]
    for flag, value in named:
        if flags[flag]:
            times = value
    return times


class _Sink(Protocol):
    def restart(self) -> None: ...
    def difference(self, found: Difference) -> None: ...
    def finish(self, result: DiffResult) -> None: ...


class _TextSink:
    """Lines to stdout, held back until they are certain."""

    def __init__(self, form: LineFormat) -> None:
        from imgtools.workflow.resumable import ResumableWriter

        self._form = form
        self._writer = ResumableWriter(sys.stdout.buffer)
        self._show = _safe if sys.stdout.isatty() else bytes

    def restart(self) -> None:
        self._writer.restart()

    def difference(self, found: Difference) -> None:
        from imgtools.cli.diff_text import lines_of

        for line in lines_of(found, self._form, self._show):
            self._writer.write(line + b"\n")

    def finish(self, result: DiffResult) -> None:
        from imgtools.cli.diff_text import fact_lines

        for line in fact_lines(result.facts):
            self._writer.write(line.encode() + b"\n")
        self._writer.finish()


class _JsonSink:
    """Everything as one JSON document, whatever its length."""

    def __init__(self) -> None:
        from imgtools.cli.json_stream import JsonStream

        self._stream = JsonStream("diff")

    def restart(self) -> None:
        self._stream.restart()

    def difference(self, found: Difference) -> None:
        change = found.change
        item: dict[str, Any] = {"path": change.path, "change": change.kind}
        if change.differences:
            item["differences"] = change.differences
        item |= {"before": _json_side(found.before), "after": _json_side(found.after)}
        if found.text is not None:
            item["diff"] = found.text
        self._stream.add(item)

    def finish(self, result: DiffResult) -> None:
        old, new = result.engines
        more = {"differ": result.differ, "engines": {"old": old, "new": new}, "facts": result.facts}
        engine = "appliance" if "appliance" in result.engines else "direct"
        self._stream.finish("changes", engine=engine, warnings=result.warnings, more=more)


def _json_side(side: Side | None) -> dict[str, Any] | None:
    from imgtools.cli.ls_cmd import json_stat

    if side is None:
        return None
    optional: dict[str, Any] = {"target": side.target, "checksum": side.checksum}
    if side.xattrs:
        optional["xattrs"] = [{"name": name, "value": value} for name, value in side.xattrs]
    return json_stat(side.stat, side.device) | {
        name: value for name, value in optional.items() if value is not None
    }


def _safe(name: bytes) -> bytes:
    return safe_text(name).encode()
