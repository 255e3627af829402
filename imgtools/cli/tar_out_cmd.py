"""``imgtools tar-out``: a folder of a guest as a tar archive."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from imgtools.cli.options import DiskArguments, Output, disk_options, mount_option, output_options
from imgtools.cli.progress import Kind, Shown, progress_option
from imgtools.cli.render import finish, report_failures, tell_engine
from imgtools.errors import UsageError
from imgtools.workflow.selection import NO_DISK

EPILOG = """\b
Examples:
  imgtools tar-out -a guest.qcow2 /etc etc.tar
  imgtools tar-out -d mydomain /home - --compress zstd | ssh backup 'cat > home.tar.zst'
  imgtools tar-out -a data.img -m /dev/sda1 / all.tar --xattrs --acls --selinux
"""


@click.command(
    "tar-out",
    epilog=EPILOG,
    short_help="Write a folder of a guest as a tar archive",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@disk_options()
@mount_option
@click.option("--compress", metavar="KIND", help="gzip, bzip2, xz, lzma or zstd.")
@click.option("--numeric-owner", is_flag=True, help="No names of users and groups.")
@click.option("--xattrs", is_flag=True, help="Extended attributes as well.")
@click.option("--selinux", is_flag=True, help="SELinux labels as well.")
@click.option("--acls", is_flag=True, help="Access control lists as well.")
@click.option("-S", "--sparse", is_flag=True, help="Store files with holes without the holes.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what matches: a path below the folder, or a last component.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@progress_option
@output_options(json=False)
@click.argument("args", nargs=-1, metavar="[GUEST] DIR FILE|-")
def command(  # noqa: PLR0917 (click gives them by name)
    disks: DiskArguments,
    output: Output,
    mounts: tuple[str, ...],
    args: tuple[str, ...],
    compress: str | None,
    numeric_owner: bool,
    xattrs: bool,
    selinux: bool,
    acls: bool,
    sparse: bool,
    exclude: tuple[str, ...],
    force: bool,
    progress: Kind,
) -> int:
    """Write the folder DIR of a guest as a tar archive to FILE, or to stdout for -.

    The archive is in pax format; its members are called ./NAME.  FILE appears only when it
    is complete.  A file that cannot be read is left out and makes the exit code 6.
    """
    if disks.empty:
        raise UsageError(NO_DISK)
    if len(args) != 2:
        raise UsageError("which folder, into which file?", hint="imgtools tar-out GUEST /etc -")
    from imgtools.guest.mounting import parse_mounts
    from imgtools.workflow.compression import check_compression
    from imgtools.workflow.tar_out import TarOptions, new_file, tar_out

    options = TarOptions(
        numeric_owner=numeric_owner,
        xattrs=xattrs,
        selinux=selinux,
        acls=acls,
        sparse=sparse,
        excludes=tuple(os.fsencode(pattern) for pattern in exclude),
        compress=check_compression(compress) if compress else None,
    )
    folder, requests = os.fsencode(args[0]), parse_mounts(mounts)
    with Shown(progress, quiet=output.quiet) as shown:
        if args[1] == "-":
            if sys.stdout.isatty():
                raise UsageError("an archive is not for a terminal", hint="name a file, or | tar t")
            sink = sys.stdout.buffer
            outcome = tar_out(disks, folder, sink, options, mounts=requests, progress=shown)
        else:
            with new_file(Path(args[1]), force=force) as stream:
                outcome = tar_out(disks, folder, stream, options, mounts=requests, progress=shown)
    tell_engine(output, outcome.engine, outcome.reason)
    code = finish(output, outcome.warnings)
    return report_failures(outcome.result.failures) or code
