"""``imgtools chmod``: modes of files of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need

EPILOG = """\b
Examples:
  imgtools chmod -a guest.qcow2 0600 /etc/ssh/ssh_host_rsa_key
  imgtools chmod -R -d mydomain go-w /srv
"""


@click.command(
    "chmod",
    epilog=EPILOG,
    short_help="Set modes of files of a guest",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-R", "--recursive", is_flag=True, help="Everything below as well; links are left alone."
)
@click.argument("args", nargs=-1, metavar="[GUEST] MODE PATH...")
@change_options
def command(change: Change, recursive: bool, args: tuple[str, ...]) -> int:
    """Set the mode of files of a guest, octal or as chmod(1) has it (u+x,go-w)."""
    need(args, 2, "which mode, of which file?", "chmod -a IMAGE 0644 /path")
    from imgtools.guest.owners import new_mode
    from imgtools.guest.steps import Chmod

    mode, *words = args
    new_mode(mode, 0)  # a mistake shows before anything is locked
    steps = [Chmod(path=guest_path(word), mode=mode, recursive=recursive) for word in words]
    return change.run(steps, "chmod")
