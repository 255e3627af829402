"""``imgtools ln``: links in a guest."""

from __future__ import annotations

import os

import click

from imgtools.cli.changing import Change, change_options, guest_path, need
from imgtools.errors import UsageError

EPILOG = """\b
Examples:
  imgtools ln -s -a guest.qcow2 /usr/share/zoneinfo/Europe/Berlin /etc/localtime
  imgtools ln -s -f -d mydomain ../sites-available/web /etc/nginx/sites-enabled/web
"""


@click.command(
    "ln",
    epilog=EPILOG,
    short_help="Make links in a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-s", "--symbolic", is_flag=True, help="A symbolic link, with TARGET as its text.")
@click.option("-f", "--force", is_flag=True, help="Replace a file or link at LINK.")
@click.argument("args", nargs=-1, metavar="[GUEST] TARGET LINK")
@change_options
def command(change: Change, symbolic: bool, force: bool, args: tuple[str, ...]) -> int:
    """Make a link in a guest: LINK leads to TARGET."""
    need(args, 2, "from where to where?", "ln -s -a IMAGE TARGET /link")
    if len(args) > 2:
        raise UsageError("one TARGET and one LINK", hint="imgtools ln -s -a IMAGE TARGET /link")
    from imgtools.guest.steps import Link

    target = os.fsencode(args[0]) if symbolic else guest_path(args[0])
    steps = [Link(target=target, path=guest_path(args[1]), symbolic=symbolic, force=force)]
    return change.run(steps, "ln")
