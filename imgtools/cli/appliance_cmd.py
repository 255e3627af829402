"""``imgtools appliance``: the saved appliance that is resumed instead of booted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from imgtools.cli.human import human_size
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import print_columns, print_json, tell
from imgtools.config import Config, load
from imgtools.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from imgtools.appliance.instant import TemplateStatus

EPILOG = """\b
Examples:
  imgtools appliance build
  imgtools appliance status
  imgtools appliance build --memsize 2048
  imgtools appliance clean --all

A template takes about 1 GiB of the cache folder.  It is made for this host as it is: after an
upgrade of qemu, of libguestfs, of the kernel or of a package that the appliance holds, launches are
ordinary ones until the next build.  docs/instant-appliance.md explains it all.
"""

_memsize = click.option(
    "--memsize", type=click.IntRange(min=256), metavar="MIB", help="For appliances of this memory."
)


@click.group(
    "appliance",
    epilog=EPILOG,
    short_help="Make the appliance start in about a second",
    context_settings={"max_content_width": 100},
)
def command() -> None:
    """Save an appliance once, and resume it whenever one is needed.

    A launch then takes about a second instead of fifteen (without KVM).  Everything that uses the
    appliance finds the template by itself; --no-instant or IMGTOOLS_INSTANT=0 turns it off.
    """


@command.command("build", short_help="Make the template (about 30 s, once)")
@click.option("--force", is_flag=True, help="Make a new one even if there is one that fits.")
@_memsize
@output_options()
def build_command(output: Output, memsize: int | None, *, force: bool) -> int:
    """Boot an appliance, save it, and try it.

    Needs a C compiler for the small helper inside.  Whatever interrupts it leaves nothing behind.
    """
    from imgtools.workflow.appliance import build

    made = build(_config(memsize), force=force, talk=_talk(output))
    if output.json:
        print_json("appliance-build", made)
    else:
        print(f"{made.path}: {made.state}, starts in {made.instant_seconds:.1f} s")
    return 0


@command.command("status", short_help="Show templates, and whether a launch would use them")
@click.option("--verify", is_flag=True, help="Read the template whole and compare checksums.")
@_memsize
@output_options()
def status_command(output: Output, memsize: int | None, *, verify: bool) -> int:
    """Show the templates in the cache folder.

    Exit status 10 if --verify finds a file that is not what was built.
    """
    from imgtools.workflow import appliance

    config = _config(memsize)
    found = appliance.status(config)
    faults = appliance.verify(config) if verify else None
    if output.json:
        print_json("appliance-status", {"templates": found, "faults": faults})
    else:
        _print_status(found)
        for name in faults or ():
            print(f"{name}: not what was built; imgtools appliance build --force makes it new")
    return EXIT_FINDINGS if faults else 0


@command.command("path", short_help="Print the folder of the template in use")
@_memsize
@output_options()
def path_command(output: Output, memsize: int | None) -> int:
    """Print the folder of the template that a launch would use; exit status 5 if there is none."""
    from imgtools.workflow.appliance import path

    folder = path(_config(memsize))
    if output.json:
        print_json("appliance-path", {"path": str(folder)})
    else:
        print(folder)
    return 0


@command.command("clean", short_help="Remove templates that are of no use any more")
@click.option("--all", "everything", is_flag=True, help="Remove the good ones as well.")
@output_options()
def clean_command(output: Output, *, everything: bool) -> int:
    """Remove templates that no launch would use: made for another qemu, set aside, half built.

    A launch that is using one is not disturbed.
    """
    from imgtools.workflow.appliance import clean

    removed = clean(load(), everything=everything)
    if output.json:
        print_json("appliance-clean", removed)
    else:
        for one in removed:
            print(f"{one.name}: removed, {human_size(one.freed)} freed")
    return 0


def _config(memsize: int | None) -> Config:
    config = load()
    return config if memsize is None else replace(config, memsize=memsize)


def _talk(output: Output) -> Callable[[str], None]:
    begin = time.monotonic()

    def talk(step: str) -> None:
        if not output.quiet:
            tell(f"{time.monotonic() - begin:4.0f} s  {step}")

    return talk


def _print_status(found: list[TemplateStatus]) -> None:
    if not found:
        print("no template; imgtools appliance build makes one (once, about 30 s)")
        return
    rows: list[tuple[str, ...]] = [("Template", "State", "Size", "Built", "Starts in", "")]
    for one in found:
        built = time.strftime("%F %R", time.localtime(one.built)) if one.built else ""
        seconds = f"{one.instant_seconds:.1f} s" if one.instant_seconds else ""
        rows.append((one.name, one.state, human_size(one.size), built, seconds, one.reason))
    print_columns(rows, gap="  ")
