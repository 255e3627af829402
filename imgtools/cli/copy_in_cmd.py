"""``imgtools copy-in``: files and folders of the host into a guest."""

from __future__ import annotations

from pathlib import Path

import click

from imgtools.cli.changing import Change, change_options, guest_path, need
from imgtools.cli.progress import Kind, Shown, progress_option

EPILOG = """\b
Examples:
  imgtools copy-in -a guest.qcow2 app.conf templates /etc/app
  imgtools copy-in -d mydomain --owner www-data: site /srv/www
  imgtools copy-in -n -a guest.qcow2 keys /root/.ssh
"""


@click.command(
    "copy-in",
    epilog=EPILOG,
    short_help="Copy files of this host into a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--owner",
    metavar="USER[:GROUP]",
    help="Owner of everything copied, by the guest's names (default: the host's numbers).",
)
@progress_option
@click.argument("args", nargs=-1, metavar="[GUEST] LOCAL... DIR")
@change_options
def command(change: Change, owner: str | None, progress: Kind, args: tuple[str, ...]) -> int:
    """Copy files and folders of this host, with everything below, into the folder DIR of a guest.

    Modes, times, attributes, hard links, device nodes and holes are kept; links are copied as
    links.  Files that are there are replaced; folders that are there keep their owner and mode.
    """
    need(args, 2, "what, into which folder?", "copy-in -a IMAGE file /etc/app")
    from imgtools.guest.archives import copy_in

    *words, folder = args
    with Shown(progress, quiet=change.output.quiet) as shown:
        sources = [Path(word) for word in words]
        step = copy_in(sources, guest_path(folder), owner=owner, told=shown.advance)
        return change.run([step], "copy-in")
