"""``imgtools search``: find(1) and grep -l for a guest that is off."""

from __future__ import annotations

import fnmatch
import os
import re
import stat as _stat
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from imgtools.cli.options import (
    DiskArguments,
    Output,
    disk_options,
    mount_option,
    output_options,
    with_options,
)
from imgtools.cli.render import finish, report_failures, safe_text, tell_engine
from imgtools.errors import EXIT_FINDINGS, UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.model.notices import Notice
    from imgtools.workflow.search import Criteria, Found

EPILOG = """\b
Examples:
  imgtools search -a guest.qcow2 --suid --owner root
  imgtools search -a guest.qcow2 /etc /srv --world-writable --fail-on-match
  imgtools search -d mydomain /home --name 'id_*' --content 'BEGIN .*PRIVATE KEY'
  imgtools search -a guest.qcow2 --type f --size +100M --newer '2026-11-01' --json
  imgtools search -a data.img -m /dev/sda1 / --name '*.log' -0 | xargs -0 echo

\b
Sizes: 4096, 10k, 10M, 2G; + is more than, - is less than that many bytes.
"""

_TYPES = {"f": "r", "d": "d", "l": "l", "b": "b", "c": "c", "p": "f", "s": "s"}
_POWERS = {"": 0, "c": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIGNS: dict[str, Literal["more", "less", "exactly"]] = {"+": "more", "-": "less", "": "exactly"}
_PERMISSIONS: dict[str, Literal["all", "any", "exactly"]] = {"-": "all", "/": "any", "": "exactly"}

_CONDITIONS = [
    click.option("--name", "names", multiple=True, metavar="GLOB", help="Last component."),
    click.option("--iname", "inames", multiple=True, metavar="GLOB", help="In any case."),
    click.option("--regex", metavar="RE", help="Somewhere in the whole path."),
    click.option(
        "--type", "kinds", multiple=True, metavar="f|d|l|b|c|p|s", help="One of these (f,l)."
    ),
    click.option("--size", "sizes", multiple=True, metavar="[+-]N[kMG]", help="Of files."),
    click.option("--owner", "--uid", "owner", metavar="NAME|UID", help="Of this user."),
    click.option("--group", "--gid", "group", metavar="NAME|GID", help="Of this group."),
    click.option(
        "--perm",
        "perms",
        multiple=True,
        metavar="[-/]MODE",
        help="Octal: exactly, -MODE all of, /MODE any of these bits.",
    ),
    click.option("--suid", is_flag=True, help="Runs as its owner."),
    click.option("--sgid", is_flag=True, help="Runs as its group."),
    click.option(
        "--world-writable",
        is_flag=True,
        help="Files and folders that anybody may write; not sticky ones like /tmp.",
    ),
    click.option("--capabilities", is_flag=True, help="Has file capabilities."),
    click.option("--newer", metavar="TIME", help="Changed after (as in log --since)."),
    click.option("--older", metavar="TIME", help="Changed before."),
    click.option("--mtime", "ages", multiple=True, metavar="[+-]DAYS", help="As find -mtime."),
    click.option("--content", metavar="RE", help="A line of the file; only regular files."),
    click.option(
        "--scan", metavar="SIZE", default="64M", help="Read no more of each file.  [default: 64M]"
    ),
    click.option("--xdev", is_flag=True, help="Stay on the filesystem of each DIR."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N files."),
    click.option("--paths", is_flag=True, help="Only the paths."),
    click.option("-0", "--null", is_flag=True, help="Only the paths, a NUL byte after each."),
    click.option("--fail-on-match", is_flag=True, help="Exit 10 when anything was found."),
]


@click.command(
    "search",
    epilog=EPILOG,
    short_help="Find files of a guest by what they are",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@with_options(_CONDITIONS)
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST] [DIR...]")
def command(
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    **flags: Any,
) -> int:
    """Find the files of a guest that fulfil every condition given, below DIR or everywhere.

    Links are not followed.  What is printed: mode, owner, group, size, time, path, and with
    --content the first line that fits.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.search import search

    if output.json and (flags["null"] or flags["paths"]):
        raise UsageError("--json cannot be combined with -0 or --paths")
    sink = _JsonSink() if output.json else _TextSink(null=flags["null"], paths=flags["paths"])
    outcome = search(
        disks,
        [os.fsencode(word) for word in args] or [b"/"],
        criteria(flags),
        sink,
        one_filesystem=flags["xdev"],
        limit=flags["limit"],
        mounts=parse_mounts(mounts),
    )
    result = outcome.result
    sink.finish(outcome.engine, outcome.warnings, limited=result.limited)
    tell_engine(output, outcome.engine, outcome.reason)
    code = finish(output, outcome.warnings)
    failed = report_failures(result.failures)
    return failed or (EXIT_FINDINGS if flags["fail_on_match"] and result.count else code)


def criteria(flags: dict[str, Any]) -> Criteria:
    """The conditions on the command line.  Raises UsageError for one that makes no sense."""
    from imgtools.cli.times import parse_time
    from imgtools.workflow.search import Criteria

    now = datetime.now().astimezone()
    permissions = [_permission(text) for text in flags["perms"]]
    permissions += [("all", _stat.S_ISUID)] if flags["suid"] else []
    permissions += [("all", _stat.S_ISGID)] if flags["sgid"] else []
    moments = {
        name: parse_time(flags[name], now, option=f"--{name}") * 1000
        for name in ("newer", "older")
        if flags[name] is not None
    }
    return Criteria(
        names=_names(flags),
        path=_pattern("--regex", flags["regex"]),
        kinds=_kinds(flags["kinds"]),
        sizes=tuple(_size("--size", text) for text in flags["sizes"]),
        owner=flags["owner"],
        group=flags["group"],
        permissions=tuple(permissions),
        world_writable=flags["world_writable"],
        capabilities=flags["capabilities"],
        ages=tuple(_age(text) for text in flags["ages"]),
        now=time.time_ns(),
        content=_pattern("--content", flags["content"], re.MULTILINE),
        scan=_size("--scan", flags["scan"])[1],
        **moments,
    )


def _names(flags: dict[str, Any]) -> tuple[re.Pattern[bytes], ...]:
    plain = [re.compile(_glob(text), re.DOTALL) for text in flags["names"]]
    return (*plain, *(re.compile(_glob(text), re.IGNORECASE) for text in flags["inames"]))


def _glob(text: str) -> bytes:
    return os.fsencode(fnmatch.translate(text))


def _pattern(option: str, text: str | None, flags: int = 0) -> re.Pattern[bytes] | None:
    if text is None:
        return None
    try:
        return re.compile(os.fsencode(text), flags)
    except re.error as error:
        raise UsageError(f"{option} {text}: {error}") from None


def _kinds(texts: Sequence[str]) -> frozenset[str]:
    letters = [letter for text in texts for letter in text.split(",")]
    unknown = [letter for letter in letters if letter not in _TYPES]
    if unknown:
        raise UsageError(f"--type {unknown[0]}: unknown", hint="known: f, d, l, b, c, p, s")
    return frozenset(_TYPES[letter] for letter in letters)


def _size(option: str, text: str) -> tuple[Literal["more", "less", "exactly"], int]:
    match = re.fullmatch(r"([+-]?)(\d{1,18})([ckmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{option} {text}: not a size", hint="4096, 10k, +10M, -2G")
    return _SIGNS[match[1]], int(match[2]) << _POWERS[match[3].lower()]


def _age(text: str) -> tuple[Literal["more", "less", "exactly"], int]:
    match = re.fullmatch(r"([+-]?)(\d{1,7})", text.strip())
    if match is None:
        raise UsageError(f"--mtime {text}: not a number of days", hint="-7 is the last week")
    return _SIGNS[match[1]], int(match[2])


def _permission(text: str) -> tuple[Literal["all", "any", "exactly"], int]:
    match = re.fullmatch(r"([-/]?)0?([0-7]{1,4})", text.strip())
    if match is None:
        raise UsageError(f"--perm {text}: not an octal mode", hint="--perm -4000, --perm /022")
    return _PERMISSIONS[match[1]], int(match[2], 8)


class _TextSink:
    """Lines to stdout, held back until they are certain."""

    def __init__(self, *, null: bool, paths: bool) -> None:
        from imgtools.workflow.resumable import ResumableWriter

        self._writer = ResumableWriter(sys.stdout.buffer)
        self._end = b"\0" if null else b"\n"
        self._paths = paths or null
        self._show = _safe if sys.stdout.isatty() and not null else bytes

    def restart(self) -> None:
        self._writer.restart()

    def found(self, found: Found) -> None:
        line = self._show(found.path) if self._paths else self._line(found)
        self._writer.write(line + self._end)

    def _line(self, found: Found) -> bytes:
        stat = found.stat
        words = [
            _stat.filemode(stat.mode),
            safe_text(found.owner or str(stat.uid)).ljust(8),
            safe_text(found.group or str(stat.gid)).ljust(8),
            str(stat.size).rjust(10),
            _moment(stat.mtime_ns // 10**9),
        ]
        line = " ".join(words).encode() + b" " + self._show(found.path)
        if found.target is not None:
            line += b" -> " + self._show(found.target)
        if found.match is not None:
            # Content is never raw: it may be anything, and is meant to be looked at.
            text = safe_text(found.match.text.replace(b"\t", b" "))
            line += f":{found.match.line}: {text}".encode()
        return line

    def finish(self, _engine: str, _warnings: Sequence[Notice], *, limited: bool) -> None:
        del limited  # the reader counts the lines
        self._writer.finish()


class _JsonSink:
    """Everything as one JSON document, whatever its length."""

    def __init__(self) -> None:
        from imgtools.cli.json_stream import JsonStream

        self._stream = JsonStream("search")

    def restart(self) -> None:
        self._stream.restart()

    def found(self, found: Found) -> None:
        from imgtools.cli.ls_cmd import json_stat

        item: dict[str, Any] = {"path": found.path, **json_stat(found.stat, found.device)}
        item |= {"owner": found.owner or None, "group": found.group or None}
        if found.target is not None:
            item["target"] = found.target
        if found.match is not None:
            item["match"] = {"line": found.match.line, "text": found.match.text}
        self._stream.add(item)

    def finish(self, engine: str, warnings: Sequence[Notice], *, limited: bool) -> None:
        more = {"limited": limited}
        self._stream.finish("files", engine=engine, warnings=warnings, more=more)


def _moment(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds).rjust(16)


def _safe(name: bytes) -> bytes:
    return safe_text(name).encode()
