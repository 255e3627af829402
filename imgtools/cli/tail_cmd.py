"""``imgtools tail``: the last lines of files of a guest."""

from __future__ import annotations

import os
import sys

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, mount_option, output_options
from imgtools.cli.render import finish, report_failures, tell_engine
from imgtools.errors import UsageError
from imgtools.model.notices import Notice
from imgtools.workflow.selection import NO_DISK

EPILOG = """\b
Examples:
  imgtools tail -a guest.qcow2 /var/log/syslog
  imgtools tail -n 50 -d mydomain /var/log/dpkg.log /var/log/auth.log
"""

FOLLOW = Notice(
    code="advice.follow",
    message="-f: a guest that is off adds nothing to its files; run the command again instead",
)


@click.command(
    "tail",
    epilog=EPILOG,
    short_help="Print the end of files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=10, help="How many lines.  [default: 10]"
)
@click.option("-f", "--follow", is_flag=True, help="Accepted, as in virt-tail; the guest is off.")
@output_options(json=False)
@click.argument("args", nargs=-1, metavar="[GUEST] FILE...")
def command(
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    lines: int,
    follow: bool,
) -> int:
    """Print the last lines of files of a guest, several files each under its name.

    Links are followed inside the guest.  A file that is missing does not stop the others.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    if not args:
        raise UsageError("which file?", hint="imgtools tail -a IMAGE /var/log/syslog")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.tail import tail

    paths = [os.fsencode(word) for word in args]
    outcome = tail(disks, paths, sys.stdout.buffer, lines=lines, mounts=parse_mounts(mounts))
    tell_engine(output, outcome.engine, outcome.reason)
    code = finish(output, (*outcome.warnings, *((FOLLOW,) if follow else ())))
    return report_failures(outcome.result) or code
