"""Programs: those of the guest, customize's options, and those of this host."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imgtools.api.guest import Guest
from imgtools.api.records import Action, Option, Values
from imgtools.guest.steps.host import RunOnHost, check_fuse, find_folder, find_program


def run_command(guest: Guest, command: str) -> Iterator[Action]:
    """Run a shell command of the guest as its root, with all that comes before it done.

    Raises GuestOperationError where the guest's programs cannot run here.
    """
    from imgtools.guest.customize.command_steps import Command

    step = Command(command=command)
    step.check(guest.tree)
    yield Action(verb="ran", path=os.fsencode(command), step=step, always=True)


def customize_options() -> tuple[Option, ...]:
    """The options of `imgtools customize`, which the operation of that name has, too."""
    from imgtools.guest.customize import commands_file
    from imgtools.guest.customize.table import OPTIONS

    return (
        *(
            Option(
                name=row.name, metavar=row.metavar, help=row.help, multiple=row.metavar is not None
            )
            for row in OPTIONS
        ),
        Option(
            name=commands_file.NAME,
            metavar="FILE",
            multiple=True,
            help="Read these options from a file, one a line without dashes.",
        ),
    )


def customize(guest: Guest, values: Mapping[str, Any]) -> Iterator[Action]:
    """Do what the options of customize say, in the order of the command line.

    Raises UsageError for a bad value, and GuestOperationError for what this guest cannot do.
    """
    from imgtools.guest.customize.commands_file import given
    from imgtools.guest.customize.plan import plan

    names = {option.name for option in customize_options()}
    known = values.given if isinstance(values, Values) else ()
    found = plan(given([(name, value) for name, value in known if name in names]))
    for one in found.steps:
        one.check(guest.tree)
    for one in found.steps:
        yield Action(verb=one.verb, path=one.shown, step=one, always=True)


def run_on_host(programs: Sequence[str], folder: str | None = None) -> Iterator[Action]:
    """Run programs of this host one after the other where the guest's files are mounted.

    ``folder`` is an empty one of this host, else a temporary one is made.  Raises UsageError for a
    program or folder that cannot be used, MissingToolError without FUSE.
    """
    place = None if folder is None else find_folder(folder)
    found = [find_program(name) for name in programs]
    if found:
        check_fuse()
    for program in found:
        step = RunOnHost(program=program, folder=place)
        yield Action(verb="ran", path=os.fsencode(program), step=step, always=True)
