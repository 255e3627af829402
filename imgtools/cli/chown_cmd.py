"""``imgtools chown``: owners of files of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools chown -a guest.qcow2 alice:staff /home/alice/notes
  imgtools chown -R -d mydomain www-data: /srv/www
"""


@click.command(
    "chown",
    epilog=EPILOG,
    short_help="Set owners of files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-R", "--recursive", is_flag=True, help="Everything below as well, links themselves.")
@click.argument("args", nargs=-1, metavar="[GUEST] USER[:GROUP] PATH...")
@change_options
def command(change: Change, recursive: bool, args: tuple[str, ...]) -> int:
    """Set owner and group of files of a guest.

    Names are the guest's own (its /etc/passwd and /etc/group); numbers work for any; USER: takes
    the user's own group.
    """
    need(args, 2, "which owner, of which file?", "chown -a IMAGE alice: /path")
    from imgtools.guest.steps import Chown

    owner, *words = args
    steps = [Chown(path=guest_path(word), owner=owner, recursive=recursive) for word in words]
    return change.run(steps, "chown")
