"""``imgtools copy-out``: files and folders of a guest into a folder of this host."""

from __future__ import annotations

import os
from pathlib import Path

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, mount_option, output_options
from imgtools.cli.progress import Kind, Shown, progress_option
from imgtools.cli.render import finish, print_json, report_failures, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

EPILOG = """\b
Examples:
  imgtools copy-out -a guest.qcow2 /etc /var/log/syslog backup/
  imgtools copy-out -d mydomain /home/alice .
  imgtools copy-out -a data.img -m /dev/sda1 / everything/

What is there already is refused, unless --force merges folders and replaces files.
Modes, times, attributes, hard links and holes are kept; owners and device nodes as root.
"""


@click.command(
    "copy-out",
    epilog=EPILOG,
    short_help="Copy files and folders out of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@click.option("--force", is_flag=True, help="Merge into folders and replace files there.")
@click.option("--no-owner", is_flag=True, help="As root too: the copies belong to you.")
@progress_option
@output_options()
@click.argument("args", nargs=-1, metavar="[GUEST] PATH... LOCALDIR")
def command(
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    force: bool,
    no_owner: bool,
    progress: Kind,
) -> int:
    """Copy files and folders of a guest into the folder LOCALDIR of this host.

    Each PATH arrives under its last component.  Links are copied as links and never followed
    on this host.  A file that cannot be read stops no other.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    if len(args) < 2:
        raise UsageError("copy what where?", hint="imgtools copy-out -a IMAGE /etc LOCALDIR")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.copy_out import copy_out

    with Shown(progress, quiet=output.quiet) as shown:
        outcome = copy_out(
            disks,
            [os.fsencode(word) for word in args[:-1]],
            Path(args[-1]),
            owners=not no_owner,
            force=force,
            mounts=parse_mounts(mounts),
            progress=shown,
        )
    copied = outcome.result
    tell_engine(output, outcome.engine, outcome.reason)
    if output.json:
        result = {"files": copied.files, "bytes": copied.size, "failed": len(copied.failures)}
        print_json("copy-out", result, engine=outcome.engine, warnings=outcome.warnings)
    code = finish(output, outcome.warnings)
    return report_failures(copied.failures) or code
