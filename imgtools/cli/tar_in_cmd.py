"""``imgtools tar-in``: a tar archive into a guest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imgtools.cli.changing import Change, change_options, guest_path
from imgtools.cli.progress import Kind, Shown, progress_option
from imgtools.errors import UsageError

EPILOG = """\b
Examples:
  imgtools tar-in -a guest.qcow2 site.tar.gz /srv/www
  tar c -C build . | imgtools tar-in -d mydomain - /opt/app
"""


@click.command(
    "tar-in",
    epilog=EPILOG,
    short_help="Unpack a tar archive in a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@progress_option
@click.argument("args", nargs=-1, metavar="[GUEST] FILE|- DIR")
@change_options
def command(change: Change, progress: Kind, args: tuple[str, ...]) -> int:
    """Unpack the tar archive FILE, or stdin for -, in the folder DIR of a guest.

    Compression (gzip, bzip2, xz, lzma, zstd) is found out.  Files that are there are replaced;
    folders that are there keep their owner and mode; links of the guest are followed inside it.
    """
    if len(args) != 2:
        raise UsageError("which archive, in which folder?", hint="imgtools tar-in GUEST F.tar /srv")
    from imgtools.guest.archives import tar_in

    archive = sys.stdin.buffer if args[0] == "-" else Path(args[0])
    with Shown(progress, quiet=change.output.quiet) as shown:
        step = tar_in(archive, guest_path(args[1]), told=shown.advance)
        return change.run([step], "tar-in")
