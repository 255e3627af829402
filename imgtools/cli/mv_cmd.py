"""``imgtools mv``: move files within a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools mv -a guest.qcow2 /etc/fstab.new /etc/fstab
  imgtools mv -d mydomain /home/alice/a /home/alice/b /srv/
"""


@click.command(
    "mv",
    epilog=EPILOG,
    short_help="Move files within a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("args", nargs=-1, metavar="[GUEST] PATH... TO")
@change_options
def command(change: Change, args: tuple[str, ...]) -> int:
    """Move files within a guest, also from one of its filesystems to another.

    Into TO where that is a directory; a file at TO is replaced.
    """
    need(args, 2, "from where to where?", "mv -a IMAGE /from /to")
    from imgtools.guest.steps import Move

    *words, to = args
    target = guest_path(to)
    if len(words) > 1:
        target = target.rstrip(b"/") + b"/"
    steps = [Move(path=guest_path(word), to=target) for word in words]
    return change.run(steps, "mv")
