"""``imgtools append-line``: add lines to a file of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools append-line -a guest.qcow2 /etc/hosts '10.0.0.5 db'
  imgtools append-line -d mydomain /etc/modules loop dummy
"""


@click.command(
    "append-line",
    epilog=EPILOG,
    short_help="Add lines to a file of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("args", nargs=-1, metavar="[GUEST] FILE LINE...")
@change_options
def command(change: Change, args: tuple[str, ...]) -> int:
    """Add lines to the end of a file of a guest, with the line ending that the file uses."""
    need(args, 2, "which file, and which line?", "append-line -a IMAGE /etc/hosts '10.0.0.5 db'")
    from imgtools.guest.steps import AppendLine

    file, *lines = args
    steps = [AppendLine(path=guest_path(file), line=line) for line in lines]
    return change.run(steps, "append-line")
