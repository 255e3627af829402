"""``imgtools mkdir``: make directories in a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools mkdir -a guest.qcow2 /srv/data
  imgtools mkdir -p --mode 0700 --owner alice: -d mydomain /home/alice/.ssh
"""


@click.command(
    "mkdir",
    epilog=EPILOG,
    short_help="Make directories in a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-p", "--parents", is_flag=True, help="Those above as well; one that is there is fine."
)
@click.option(
    "--mode", default="0755", metavar="MODE", help="Mode of the new directory (default 0755)."
)
@click.option("--owner", metavar="USER[:GROUP]", help="Owner, by the guest's names (default root).")
@click.argument("args", nargs=-1, metavar="[GUEST] DIR...")
@change_options
def command(
    change: Change, parents: bool, mode: str, owner: str | None, args: tuple[str, ...]
) -> int:
    """Make directories in a guest."""
    need(args, 1, "which directory?", "mkdir -a IMAGE /path")
    from imgtools.guest.steps import Mkdir

    steps = [Mkdir(path=guest_path(word), parents=parents, mode=mode, owner=owner) for word in args]
    return change.run(steps, "mkdir")
