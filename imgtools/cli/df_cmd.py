"""``imgtools df``: virt-df's table, CSV and numbers."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from imgtools.cli.human import human_size
from imgtools.cli.options import DiskArguments, Output, disk_options, output_options
from imgtools.cli.render import finish, print_csv, print_json, safe_text, tell, tell_engine
from imgtools.errors import EXIT_FAILED, UsageError
from imgtools.model.files import StatVFS
from imgtools.model.notices import Notice

if TYPE_CHECKING:
    from imgtools.workflow.df import Failure, FilesystemUsage, GuestUsage

EPILOG = """\b
Examples:
  imgtools df -a guest.qcow2
  imgtools df -h -d mydomain
  imgtools df --csv -a disk1.qcow2 -a disk2.qcow2     (one guest of two disks)
  imgtools df                                         (every domain of libvirt)

Several -a are the disks of one guest; each -d is a guest of its own.
"""
NAME_WIDTH = 36


@click.command(
    "df",
    epilog=EPILOG,
    short_help="Show free space of the filesystems of guests",
    context_settings={"help_option_names": ["--help"]},
)
@disk_options(positional="all")
@click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes like 1.5G.")
@click.option("-i", "--inodes", is_flag=True, help="Inodes instead of blocks.")
@click.option("--csv", is_flag=True, help="Comma-separated values.")
@click.option("--uuid", is_flag=True, help="Name domains by UUID.")
@click.option(
    "-P",
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read at most N guests at a time.  [env: IMGTOOLS_JOBS]",
)
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST]...")
def command(
    disks: DiskArguments,
    output: Output,
    human: bool,
    inodes: bool,
    csv: bool,
    uuid: bool,
    jobs: int | None,
    args: tuple[str, ...],
) -> int:
    """Show free space of the filesystems of guests, as df does inside them.

    With neither -a nor -d: of every domain of the libvirt connection.
    """
    if args:
        raise UsageError(f"{args[0]}: one argument too many")
    if csv and human:
        raise UsageError("-h and --csv cannot be combined", hint="spreadsheets misread 1.5G")
    if output.json and (csv or human):
        raise UsageError("--json cannot be combined with --csv or -h")
    from imgtools.workflow.df import df

    guests = df(disks, jobs=jobs or 0)
    if output.json:
        return _json(list(guests), output)
    return _table(guests, output, human=human, inodes=inodes, csv=csv, uuid=uuid)


def _table(
    guests: Iterable[GuestUsage],
    output: Output,
    *,
    human: bool,
    inodes: bool,
    csv: bool,
    uuid: bool,
) -> int:
    titles = _titles(human=human, inodes=inodes)
    warnings: list[Notice] = []
    failures = 0
    # The title waits for the first guest, so that a lone failure leaves stdout empty.
    for guest in _before_first(
        guests, lambda: _print_row("VirtualMachine", "Filesystem", titles, csv=csv, title=True)
    ):
        name = guest.uuid if uuid and guest.uuid else guest.name
        for usage in guest.filesystems:
            cells = _cells(usage.space, human=human, inodes=inodes, csv=csv)
            _print_row(name, usage.device, cells, csv=csv)
        sys.stdout.flush()
        if guest.engine is not None:
            tell_engine(output, guest.engine, guest.reason, guest=guest.name)
        if guest.failure is not None:
            failures += 1
            tell(f"{guest.name}: {_failure_line(guest.failure)}")
        warnings += _named_warnings(guest)
    code = finish(output, warnings)
    return EXIT_FAILED if failures else code


def _before_first(guests: Iterable[GuestUsage], act: Callable[[], None]) -> Iterator[GuestUsage]:
    iterator = iter(guests)
    first = next(iterator, None)
    act()
    if first is not None:
        yield first
        yield from iterator


def _titles(*, human: bool, inodes: bool) -> list[str]:
    if inodes:
        return ["Inodes", "IUsed", "IFree", "IUse%"]
    return ["Size" if human else "1K-blocks", "Used", "Available", "Use%"]


def _print_row(name: str, device: str, cells: list[str], *, csv: bool, title: bool = False) -> None:
    """One line as virt-df prints it (df/output.c)."""
    if csv:
        print_csv([[name, device, *cells]])
        return
    label = safe_text(device if title else f"{name}:{device}")
    if len(label) > NAME_WIDTH:
        print(label)
        label = ""
    size, used, free, percent = cells
    print(f"{label:<{NAME_WIDTH}}{size:>10} {used:>10} {free:>10} {percent:>5}")


def _cells(space: StatVFS, *, human: bool, inodes: bool, csv: bool) -> list[str]:
    if inodes:
        total, free, available = space.files, space.ffree, space.ffree
        numbers = [str(number) for number in (total, total - free, available)]
    else:
        total, free, available = space.blocks, space.bfree, space.bavail
        show = human_size if human else _kibibytes
        numbers = [show(number * space.bsize) for number in (total, total - free, available)]
    percent = _percent_used(total, free)
    return [*numbers, f"{percent:.1f}" if csv else f"{math.ceil(percent):3d}%"]


def _kibibytes(size: int) -> str:
    return str(size // 1024)


def _percent_used(total: int, free: int) -> float:
    """The percentage with the single precision in which virt-df keeps it."""
    if total == 0:
        return 0.0
    percent = 100.0 - 100.0 * free / total
    return float(struct.unpack("f", struct.pack("f", percent))[0])


def _named_warnings(guest: GuestUsage) -> list[Notice]:
    return [
        Notice(code=warning.code, message=f"{guest.name}: {warning.message}")
        for warning in guest.warnings
    ]


def _failure_line(failure: Failure) -> str:
    return failure.message + (f" -- {failure.hint}" if failure.hint else "")


def _json(guests: list[GuestUsage], output: Output) -> int:
    warnings = [warning for guest in guests for warning in _named_warnings(guest)]
    engines = {guest.engine for guest in guests if guest.engine is not None}
    engine = engines.pop() if len(engines) == 1 else None
    print_json("df", [_json_guest(guest) for guest in guests], engine=engine, warnings=warnings)
    code = finish(output, warnings)
    return EXIT_FAILED if any(guest.failure for guest in guests) else code


def _json_guest(guest: GuestUsage) -> dict[str, object]:
    failure = guest.failure
    error = failure and {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit": failure.exit_code,
    }
    return {
        "name": guest.name,
        "uuid": guest.uuid,
        "engine": guest.engine,
        "filesystems": [_json_usage(usage) for usage in guest.filesystems],
        "error": error,
    }


def _json_usage(usage: FilesystemUsage) -> dict[str, object]:
    space = usage.space
    return {
        "device": usage.device,
        "type": usage.type,
        "block_size": space.bsize,
        "size": space.blocks * space.bsize,
        "used": (space.blocks - space.bfree) * space.bsize,
        "available": space.bavail * space.bsize,
        "inodes": space.files,
        "inodes_used": space.files - space.ffree,
        "inodes_free": space.ffree,
    }
