"""``imgtools customize``: files, programs, packages and accounts of a guest, as one change."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from imgtools.cli.changing import Change, change_options
from imgtools.errors import UsageError

EPILOG = """\b
Examples:
  imgtools customize -a guest.qcow2 --write /etc/motd:hello --run-command 'useradd -m bob'
  imgtools customize -d mydomain --install nginx,curl --run setup.sh
  imgtools customize -a guest.qcow2 --repository ./debs --install mypackage
  imgtools customize -n --diff -a guest.qcow2 --edit '/etc/default/grub:s/quiet//'
  imgtools customize -a guest.qcow2 --commands-from-file commands.txt

Options run in the order of the command line, in one transaction: when one fails, the image stays
byte for byte as it was (exit 6).  Commands run as root in the guest's own system, inside the
appliance; what they printed is shown when they fail, or with -v, and is logged nowhere.  --install
and --update have a network, other commands only with --network: the appliance is then booted, which
takes longer.  docs/customize.md tells what differs from virt-customize.
"""


class _Command(click.Command):
    """Has the options of the table, which is loaded only when this command is used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not hasattr(self, "_more"):
            from imgtools.api import customize_options
            from imgtools.cli.customizing import click_options

            self._more = click_options(customize_options())
        return [*self._more, *super().get_params(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from imgtools.guest.customize.table import GROUPS

        params = self.get_params(ctx)
        records = {one.opts[0]: one.get_help_record(ctx) for one in params}
        rows = {name: record for name, record in records.items() if record is not None}
        for title, group in GROUPS:
            with formatter.section(title):
                formatter.write_dl([rows.pop(f"--{row.name}") for row in group])
        with formatter.section("Options"):
            formatter.write_dl(list(rows.values()))


@click.command(
    "customize",
    cls=_Command,
    epilog=EPILOG,
    short_help="Customize a guest: files, commands, packages, passwords, keys",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--memsize",
    type=click.IntRange(min=256),
    metavar="MB",
    help="Memory for commands (the appliance is booted).  [env: IMGTOOLS_MEMSIZE]",
)
@click.option(
    "--smp",
    type=click.IntRange(min=1, max=64),
    default=1,
    metavar="N",
    help="Processors for commands (with more than one the appliance is booted).",
)
@click.option("-x", "trace", is_flag=True, help="Trace libguestfs's calls on stderr.")
@click.argument("args", nargs=-1, metavar="[GUEST]")
@change_options
def command(
    change: Change,
    memsize: int | None,
    smp: int,
    trace: bool,
    args: tuple[str, ...],
    **_options: Any,
) -> int:
    """Customize a guest: change files, run commands, install packages, set passwords and names.

    What the guest's distribution does not support is an error.  The guest must be off.
    """
    if args:
        raise UsageError(f"what is {args[0]}?", hint="more disks of the guest: -a FILE -a FILE")
    from imgtools.api import customize_options
    from imgtools.cli.customizing import Hearing, given
    from imgtools.workflow.customizing import wanted

    found = wanted(given(customize_options()), processors=smp)
    if not found.steps:
        raise UsageError("nothing to do is named", hint="imgtools customize --help")
    if memsize:
        config = replace(change.disks.config, memsize=memsize)
        change.disks = replace(change.disks, config=config)
    if trace:
        os.environ["LIBGUESTFS_TRACE"] = "1"  # which libguestfs reads when a handle is made
    hearing = Hearing(change.output)
    change.how = replace(change.how, machine=found.machine, ears=hearing.ears)
    with hearing.telling(dry_run=change.how.dry_run):
        return change.run([found.step], "customize")
