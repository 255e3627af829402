"""``imgtools cat``: files of a guest on stdout, byte for byte."""

from __future__ import annotations

import os
import sys

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, mount_option, output_options
from imgtools.cli.render import finish, report_failures, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

EPILOG = """\b
Examples:
  imgtools cat -a guest.qcow2 /etc/fstab
  imgtools cat -d mydomain /etc/hostname /etc/os-release
  imgtools cat -a data.img -m /dev/sda1 /notes.txt
  imgtools cat guest.qcow2 /var/log/syslog | less
"""


@click.command(
    "cat",
    epilog=EPILOG,
    short_help="Print files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@output_options(json=False)
@click.argument("args", nargs=-1, metavar="[GUEST] FILE...")
def command(
    disks: DiskArguments, output: Output, mounts: tuple[str, ...], args: tuple[str, ...]
) -> int:
    """Print files of a guest on stdout, byte for byte.

    Links are followed inside the guest.  A file that is missing does not stop the others.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    if not args:
        raise UsageError("which file?", hint="imgtools cat -a IMAGE /etc/fstab")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.cat import cat

    paths = [os.fsencode(word) for word in args]
    outcome = cat(disks, paths, sys.stdout.buffer, mounts=parse_mounts(mounts))
    tell_engine(output, outcome.engine, outcome.reason)
    code = finish(output, outcome.warnings)
    return report_failures(outcome.result) or code
