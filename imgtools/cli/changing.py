"""What the writing commands share: their options, how they run, and how they say what they did."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from imgtools.cli.options import (
    DiskArguments,
    Output,
    disk_options,
    mount_option,
    output_options,
    with_options,
)
from imgtools.cli.render import finish, print_json, safe_text, tell
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

if TYPE_CHECKING:
    from imgtools.guest.steps import Step
    from imgtools.workflow.changing import How, Result, Shown

F = TypeVar("F", bound=Callable[..., Any])

CHANGE_OPTIONS = {
    "dry_run": click.option(
        "-n", "--dry-run", is_flag=True, help="Show what would change; the image stays as it is."
    ),
    "diff": click.option(
        "--diff", is_flag=True, help="Show what changes, text files as a unified diff."
    ),
    "workdir": click.option(
        "--workdir",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Folder for the overlay (default: beside the image; needed for a block device).",
    ),
    "break_overlays": click.option(
        "--break-overlays",
        is_flag=True,
        help="Change an image although others beside it rest on it, which breaks those.",
    ),
}


class Change:
    """What a writing command was given: the guest, how to change it, and the words left over."""

    def __init__(
        self, disks: DiskArguments, output: Output, how: How, mounts: tuple[str, ...]
    ) -> None:
        self.disks = disks
        self.output = output
        self.how = how
        self.mounts = mounts

    def run(self, steps: Sequence[Step], command: str) -> int:
        """Make the change, say what it was, and return the exit code."""
        from imgtools.guest.mounting import parse_mounts
        from imgtools.workflow.changing import change

        result = change(
            self.disks, steps, self.how, command=command, mounts=parse_mounts(self.mounts)
        )
        if self.output.json:
            _print_json(command, result, self.how)
        elif not self.output.quiet or self.how.dry_run or self.how.diff:
            _print(result, self.how)
        return finish(self.output, result.warnings)


def change_options(function: F) -> F:
    """Give the command the options of all writing commands; it receives ``change: Change``."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from imgtools.workflow.changing import How

        disks, output = kwargs.pop("disks"), kwargs.pop("output")
        if disks.empty:
            raise UsageError(NO_DISK)
        dry_run, diff, workdir, breaking = (
            kwargs.pop(name) for name in ("dry_run", "diff", "workdir", "break_overlays")
        )
        how = How(
            dry_run=dry_run,
            listing=dry_run or output.json,
            diff=diff,
            workdir=Path(workdir) if workdir else None,
            break_overlays=breaking,
        )
        change = Change(disks, output, how, kwargs.pop("mounts"))
        return function(*args, change=change, **kwargs)

    decorated: Any = with_options(list(CHANGE_OPTIONS.values()))(wrapper)
    decorated = disk_options()(mount_option(output_options()(decorated)))
    shared = frozenset(option.name for option in decorated.__click_params__)
    decorated.imgtools_step = StepCommand(function, shared)
    return cast("F", decorated)


class StepCommand(NamedTuple):
    """A writing command as a step of `apply`: its function, and the options that it shares."""

    function: Callable[..., int]
    shared: frozenset[str]


def guest_path(word: str) -> bytes:
    """A guest path from the command line.  Raises UsageError unless it is absolute."""
    if not word.startswith("/"):
        raise UsageError(f"{word!r}: not an absolute path", hint="paths in the guest start with /")
    return os.fsencode(word)


def parse_time(text: str) -> int:
    """A time from the command line, in nanoseconds.  Raises UsageError.

    ISO 8601 (local time unless it says otherwise), or ``@`` and seconds since 1970.
    """
    from datetime import datetime

    try:
        if text.startswith("@"):
            return int(text[1:]) * 10**9
        return int(datetime.fromisoformat(text).timestamp()) * 10**9
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{text}: no time", hint="2026-01-31T12:00, or @SECONDS") from None


def parse_size(text: str) -> int:
    """A size in bytes, with K, M, G, T for powers of 1024.  Raises UsageError."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdigit() or not number.isascii() or unit not in ("", *"KMGT"):
        raise UsageError(f"{text}: no size", hint="bytes, or as 512K, 1G")
    size = int(number) << 10 * " KMGT".index(unit or " ")
    if size >= 1 << 63:
        raise UsageError(f"{text}: larger than any file")
    return size


def need(args: Sequence[str], count: int, what: str, example: str) -> None:
    """Raise UsageError when fewer than ``count`` words are left."""
    if len(args) < count:
        raise UsageError(what, hint=f"imgtools {example}")


# --- saying what was done ------------------------------------------------------------------------

_LETTERS = {"added": "A", "removed": "D", "modified": "M"}


def _print(result: Result, how: How) -> None:
    if not result.done:
        tell("nothing to change: the guest is so already")
        return
    if result.changes is None:
        for one in result.done:
            detail = f" ({one.detail})" if one.detail else ""
            print(f"{one.verb} {safe_text(one.path)}{safe_text(detail)}")
        return
    for shown in result.changes:
        print(_line(shown))
        for line in shown.diff or ():
            print(line)
        if how.diff and shown.diff is None and "content" in shown.change.differences:
            print("  (binary or too large for a text diff)")
    if not result.changes:
        tell("no file differs (times of folders do not count)")
    if not result.committed:
        tell("dry run: the image is as it was")


def _line(shown: Shown) -> str:
    change = shown.change
    words = ", ".join(change.differences)
    if "mode" in change.differences and change.before and change.after:
        words = words.replace("mode", f"mode {_mode(change.before)} -> {_mode(change.after)}")
    if "owner" in change.differences and change.before and change.after:
        old, new = (f"{one.uid}:{one.gid}" for one in (change.before, change.after))
        words = words.replace("owner", f"owner {old} -> {new}")
    return f"{_LETTERS[change.kind]} {safe_text(change.path)}" + (f"  ({words})" if words else "")


def _mode(stat: Any) -> str:
    return f"{stat.mode & 0o7777:04o}"


def _print_json(command: str, result: Result, how: How) -> None:
    changes = [
        {
            "path": shown.change.path,
            "kind": shown.change.kind,
            "differences": shown.change.differences,
            "before": _side(shown.change.before),
            "after": _side(shown.change.after),
            "diff": shown.diff,
        }
        for shown in result.changes or ()
    ]
    document = {
        "committed": result.committed,
        "dry_run": how.dry_run,
        "done": result.done,
        "changes": changes,
    }
    print_json(command, document, engine="appliance", warnings=result.warnings)


def _side(stat: Any) -> dict[str, Any] | None:
    from imgtools.cli.listing import type_letter

    if stat is None:
        return None
    return {
        "type": type_letter(stat),
        "mode": _mode(stat),
        "uid": stat.uid,
        "gid": stat.gid,
        "size": stat.size,
        "mtime_ns": stat.mtime_ns,
    }
