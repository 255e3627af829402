"""``imgtools write``: the content of a file of a guest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.changing import Change, change_options, guest_path, need
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.guest.steps import Content

EPILOG = """\b
Examples:
  imgtools write -a guest.qcow2 /etc/hostname --content 'web01'
  imgtools write -d mydomain /etc/motd --from motd.txt --mode 0644
  pg_dump db | imgtools write -a guest.qcow2 /srv/dump.sql -
"""


@click.command(
    "write",
    epilog=EPILOG,
    short_help="Write a file of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--content", metavar="TEXT", help="This text; a line break is added at its end.")
@click.option(
    "--from",
    "source",
    type=click.Path(),
    metavar="FILE",
    help="The content of a host file, byte for byte.",
)
@click.option("--mode", metavar="MODE", help="Mode (default: 0644 if new, else as it is).")
@click.option("--owner", metavar="USER[:GROUP]", help="Owner, by the guest's names.")
@click.argument("args", nargs=-1, metavar="[GUEST] FILE [-]")
@change_options
def command(
    change: Change,
    content: str | None,
    source: str | None,
    mode: str | None,
    owner: str | None,
    args: tuple[str, ...],
) -> int:
    """Write a file of a guest: a text, a host file, or stdin (-).

    A file that is there keeps its owner, mode, attributes and labels unless others are named; a
    link is followed inside the guest.
    """
    need(args, 1, "which file?", "write -a IMAGE /path --content TEXT")
    stdin = len(args) == 2 and args[1] == "-"
    if len(args) > 1 + stdin or (content is not None) + (source is not None) + stdin != 1:
        raise UsageError(
            "name one file, and its content once",
            hint="FILE --content TEXT, FILE --from HOSTFILE, or FILE - for stdin",
        )
    from imgtools.guest.owners import new_mode
    from imgtools.guest.steps import Write

    if mode is not None:
        new_mode(mode, 0)
    where = guest_path(args[0])
    step = Write(path=where, content=_content(content, source), mode=mode, owner=owner)
    return change.run([step], "write")


def _content(text: str | None, source: str | None) -> Content:
    from imgtools.guest.steps import Content

    if text is not None:
        ending = "" if text.endswith("\n") or not text else "\n"
        return Content(data=(text + ending).encode(errors="surrogateescape"))
    if source is None:
        return Content(stream=sys.stdin.buffer)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"--from {source}: no such file", hint="name a regular file of the host")
    return Content(file=path)
