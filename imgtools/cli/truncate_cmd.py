"""``imgtools truncate``: sizes of files of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need, parse_size

EPILOG = """\b
Examples:
  imgtools truncate -a guest.qcow2 /var/log/wtmp /var/log/btmp
  imgtools truncate -s 1M -d mydomain /srv/file
  imgtools truncate -R -a guest.qcow2 /var/log
"""


@click.command(
    "truncate",
    epilog=EPILOG,
    short_help="Cut or extend files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-s",
    "--size",
    default="0",
    metavar="SIZE",
    help="New size in bytes, or with K, M, G, T (default 0).",
)
@click.option("-R", "--recursive", is_flag=True, help="Every regular file below the directory.")
@click.argument("args", nargs=-1, metavar="[GUEST] FILE...")
@change_options
def command(change: Change, size: str, recursive: bool, args: tuple[str, ...]) -> int:
    """Cut files of a guest to a size (0 by default), or extend them by a hole."""
    need(args, 1, "which file?", "truncate -a IMAGE /var/log/wtmp")
    from imgtools.guest.steps import Truncate

    bytes_ = parse_size(size)
    steps = [Truncate(path=guest_path(word), size=bytes_, recursive=recursive) for word in args]
    return change.run(steps, "truncate")
