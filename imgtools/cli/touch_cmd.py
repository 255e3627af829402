"""``imgtools touch``: times of files of a guest."""

from __future__ import annotations

import click

from imgtools.cli.changing import Change, change_options, guest_path, need, parse_time

EPILOG = """\b
Examples:
  imgtools touch -a guest.qcow2 /.autorelabel
  imgtools touch --date 2026-01-31T12:00Z -d mydomain /etc/fstab
"""


@click.command(
    "touch",
    epilog=EPILOG,
    short_help="Make files of a guest, or set their times",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--date",
    "--time",
    "date",
    metavar="TIME",
    help="This time (ISO 8601, or @SECONDS) instead of now.",
)
@click.option(
    "-C", "--no-create", "no_create", is_flag=True, help="Do not make a file that is not there."
)
@click.argument("args", nargs=-1, metavar="[GUEST] FILE...")
@change_options
def command(change: Change, date: str | None, no_create: bool, args: tuple[str, ...]) -> int:
    """Set the times of files of a guest to now; make those that are not there, empty."""
    need(args, 1, "which file?", "touch -a IMAGE /.autorelabel")
    from imgtools.guest.steps import Touch

    when = None if date is None else parse_time(date)
    steps = [Touch(path=guest_path(word), when_ns=when, create=not no_create) for word in args]
    return change.run(steps, "touch")
