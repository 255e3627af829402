"""``imgtools rm``: remove files of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools rm -a guest.qcow2 /etc/udev/rules.d/70-persistent-net.rules
  imgtools rm -r -f -d mydomain /var/cache/apt/archives
"""


@click.command(
    "rm",
    epilog=EPILOG,
    short_help="Remove files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-r", "-R", "--recursive", is_flag=True, help="Remove directories with everything below."
)
@click.option("-f", "--force", is_flag=True, help="What is not there is fine.")
@click.argument("args", nargs=-1, metavar="[GUEST] PATH...")
@change_options
def command(change: Change, recursive: bool, force: bool, args: tuple[str, ...]) -> int:
    """Remove files, links and (with -r) directories of a guest.

    A link is removed, not what it leads to; other filesystems below a directory are not touched.
    """
    need(args, 1, "which file?", "rm -a IMAGE /path")
    from imgtools.guest.steps import Remove

    steps = [Remove(path=guest_path(word), recursive=recursive, force=force) for word in args]
    return change.run(steps, "rm")
