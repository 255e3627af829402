"""``imgtools image snapshot``, also ``imgtools snapshot``: internal snapshots of qcow2."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.human import human_size
from imgtools.cli.image.qcow2 import place_of, qcow2_image
from imgtools.cli.options import Output
from imgtools.cli.render import finish, print_columns, print_json, safe_text

if TYPE_CHECKING:
    from imgtools.image.header import Snapshot

EPILOG = """\b
Examples:
  imgtools snapshot list guest.qcow2
  imgtools snapshot create guest.qcow2 before-upgrade
  imgtools snapshot apply guest.qcow2 before-upgrade
  imgtools snapshot delete guest.qcow2 before-upgrade

A snapshot lies inside the image.  Going back to one makes the present state a snapshot first,
whose name is told: a way back from the way back.
"""


@click.group(
    "snapshot",
    epilog=EPILOG,
    short_help="List, create, apply and delete internal snapshots",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def command() -> None:
    """Internal snapshots of a qcow2 image."""


@command.command("list", short_help="Show what snapshots there are")
@qcow2_image
def list_command(output: Output, image: Path, image_format: str | None, *, untrusted: bool) -> int:
    """Show the snapshots of IMAGE, also while it is in use."""
    from imgtools.workflow.opening import interrupted_notices
    from imgtools.workflow.snapshots import listed

    found = listed(place_of(image, image_format, untrusted=untrusted))
    notices = interrupted_notices(image)
    if output.json:
        print_json("snapshot-list", [_facts(one) for one in found], warnings=notices)
    elif found:
        rows = [["ID", "NAME", "DATE", "VM SIZE", "VIRTUAL SIZE"]]
        rows += [_row(one) for one in found]
        print_columns(rows, right=(3, 4), gap="  ")
    return finish(output, notices)


@command.command("create", short_help="Save the present state")
@qcow2_image
@click.argument("name", metavar="NAME")
def create_command(
    output: Output, image: Path, image_format: str | None, name: str, *, untrusted: bool
) -> int:
    """Save the present state of IMAGE as the snapshot NAME."""
    from imgtools.workflow.snapshots import create

    made = create(place_of(image, image_format, untrusted=untrusted), name)
    _say(output, "create", {"snapshot": _facts(made)}, f"{image}: {made.name}: made, id {made.id}")
    return finish(output, ())


@command.command("apply", short_help="Go back to a snapshot")
@click.option("--no-way-back", is_flag=True, help="Let the present state be lost.")
@click.option(
    "--break-overlays",
    is_flag=True,
    help="Go on although overlays rest on the image: they are of no use afterwards.",
)
@qcow2_image
@click.argument("name", metavar="NAME|ID")
def apply_command(
    *,
    output: Output,
    image: Path,
    image_format: str | None,
    name: str,
    untrusted: bool,
    no_way_back: bool,
    break_overlays: bool,
) -> int:
    """Make the snapshot NAME the present state of IMAGE.

    What was the present state is saved as a snapshot first.
    """
    from imgtools.workflow.snapshots import apply

    done = apply(
        place_of(image, image_format, untrusted=untrusted),
        name,
        way_back=not no_way_back,
        break_overlays=break_overlays,
    )
    back = f"; the state before is the snapshot {done.way_back}" if done.way_back else ""
    document = {
        "snapshot": _facts(done.snapshot),
        "way_back": done.way_back,
        "virtual_size": done.virtual_size,
    }
    text = f"{image}: is as it was at {done.snapshot.name or done.snapshot.id}{back}"
    _say(output, "apply", document, text, done.warnings)
    return finish(output, done.warnings)


@command.command("delete", short_help="Delete a snapshot")
@qcow2_image
@click.argument("name", metavar="NAME|ID")
def delete_command(
    output: Output, image: Path, image_format: str | None, name: str, *, untrusted: bool
) -> int:
    """Delete the snapshot NAME of IMAGE; its present state stays."""
    from imgtools.workflow.snapshots import delete

    gone = delete(place_of(image, image_format, untrusted=untrusted), name)
    text = f"{image}: {gone.name or gone.id}: deleted"
    _say(output, "delete", {"snapshot": _facts(gone)}, text)
    return finish(output, ())


def _say(
    output: Output, verb: str, document: dict[str, Any], text: str, warnings: Any = ()
) -> None:
    if output.json:
        print_json(f"snapshot-{verb}", document, warnings=warnings)
    elif not output.quiet:
        print(safe_text(text))


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "date_seconds": snapshot.date_seconds,
        "vm_state_size": snapshot.vm_state_size,
        "virtual_size": snapshot.virtual_size,
    }


def _row(snapshot: Snapshot) -> list[str]:
    date = datetime.fromtimestamp(snapshot.date_seconds, UTC)
    size = snapshot.virtual_size
    return [
        snapshot.id,
        snapshot.name,
        date.strftime("%Y-%m-%d %H:%M:%SZ"),
        human_size(snapshot.vm_state_size),
        "-" if size is None else human_size(size),
    ]
