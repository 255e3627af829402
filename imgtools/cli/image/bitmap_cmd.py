"""``imgtools image bitmap``: persistent dirty bitmaps of qcow2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.human import human_size
from imgtools.cli.image.qcow2 import place_of, qcow2_image
from imgtools.cli.image.words import LocalFile, Size
from imgtools.cli.options import Output
from imgtools.cli.render import finish, print_columns, print_json, safe_text
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.image.header import Bitmap

EPILOG = """\b
Examples:
  imgtools image bitmap list guest.qcow2
  imgtools image bitmap add -g 64K guest.qcow2 since-monday
  imgtools image bitmap clear guest.qcow2 since-monday
  imgtools image bitmap merge --from overlay.qcow2 guest.qcow2 since-monday since-friday

A bitmap marks what was written since it was made or cleared; programs for backup read it.
"""

_DONE = {
    "remove": "removed",
    "clear": "cleared",
    "enable": "enabled",
    "disable": "disabled",
}


def _granularity(_ctx: click.Context, _param: click.Parameter, value: int | None) -> int | None:
    if value is not None and (value & (value - 1) or not 512 <= value <= 1 << 31):
        raise UsageError(f"{value}: a granularity is a power of two from 512 to 2G")
    return value


@click.group(
    "bitmap",
    epilog=EPILOG,
    short_help="List, add and change dirty bitmaps",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def command() -> None:
    """Persistent dirty bitmaps of a qcow2 image."""


@command.command("list", short_help="Show what bitmaps there are")
@qcow2_image
def list_command(output: Output, image: Path, image_format: str | None, *, untrusted: bool) -> int:
    """Show the bitmaps of IMAGE, also while it is in use."""
    from imgtools.workflow.bitmaps import listed
    from imgtools.workflow.opening import interrupted_notices

    found = listed(place_of(image, image_format, untrusted=untrusted))
    notices = interrupted_notices(image)
    if output.json:
        print_json("bitmap-list", found, warnings=notices)
    elif found:
        rows = [["NAME", "GRANULARITY", "FLAGS"]]
        rows += [[one.name, human_size(one.granularity), ", ".join(one.flags)] for one in found]
        print_columns(rows, right=(1,), gap="  ")
    return finish(output, notices)


@command.command("add", short_help="Add an empty bitmap")
@click.option(
    "-g",
    "--granularity",
    metavar="SIZE",
    type=Size(least=0),
    callback=_granularity,
    help="Bytes that one mark stands for (or as 64K).",
)
@click.option("--disabled", is_flag=True, help="Writes are not to be marked yet.")
@qcow2_image
@click.argument("name", metavar="NAME")
def add_command(
    *,
    output: Output,
    image: Path,
    image_format: str | None,
    name: str,
    untrusted: bool,
    granularity: int | None,
    disabled: bool,
) -> int:
    """Add the bitmap NAME to IMAGE; writes are marked from now on."""
    from imgtools.workflow.bitmaps import add

    place = place_of(image, image_format, untrusted=untrusted)
    return _say(output, "add", image, add(place, name, granularity=granularity, disabled=disabled))


def _changing(verb: str, short: str, long: str) -> None:
    @command.command(verb, short_help=short, help=long)
    @qcow2_image
    @click.argument("name", metavar="NAME")
    def change_command(
        output: Output, image: Path, image_format: str | None, name: str, *, untrusted: bool
    ) -> int:
        from imgtools.workflow.bitmaps import change

        place = place_of(image, image_format, untrusted=untrusted)
        return _say(output, verb, image, change(place, name, verb))


_changing("remove", "Remove a bitmap", "Remove the bitmap NAME from IMAGE.")
_changing("clear", "Take all marks out of a bitmap", "Take all marks out of the bitmap NAME.")
_changing("enable", "Mark writes from now on", "Have the bitmap NAME mark writes from now on.")
_changing("disable", "Mark no more writes", "Have the bitmap NAME mark no more writes.")


@command.command("merge", short_help="Add the marks of another bitmap")
@click.option(
    "--from",
    "other",
    metavar="OTHER",
    type=LocalFile(),
    help="The image that has SOURCE, if not IMAGE itself.",
)
@qcow2_image
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="SOURCE")
def merge_command(
    *,
    output: Output,
    image: Path,
    image_format: str | None,
    name: str,
    source: str,
    untrusted: bool,
    other: Path | None,
) -> int:
    """Add to the bitmap NAME what the bitmap SOURCE has marked."""
    from imgtools.workflow.bitmaps import merge

    place = place_of(image, image_format, untrusted=untrusted)
    return _say(output, "merge", image, merge(place, name, source, other))


def _say(output: Output, verb: str, image: Path, bitmap: Bitmap) -> int:
    document: dict[str, Any] = {"bitmap": bitmap}
    words = {"add": "added", "merge": "has the marks of both"} | _DONE
    if output.json:
        print_json(f"bitmap-{verb}", document)
    elif not output.quiet:
        print(safe_text(f"{image}: {bitmap.name}: {words[verb]}"))
    return finish(output, ())
