"""``imgtools image commit``: write an overlay into an image below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.image.words import LocalFile, format_option
from imgtools.cli.options import Output, output_options
from imgtools.cli.progress import Kind, Part, progress_option
from imgtools.cli.render import finish, print_json, safe_text

if TYPE_CHECKING:
    from imgtools.workflow.committing import Committed

EPILOG = """\b
Examples:
  imgtools image commit overlay.qcow2
  imgtools image commit --keep overlay.qcow2
  imgtools image commit -b base.raw overlay.qcow2
  imgtools image commit --dry-run --json overlay.qcow2

Afterwards the base shows what the overlay shows, and the overlay is emptied.  It is refused where
other overlays, domains of libvirt or snapshots inside rely on what would change (exit 8).  A run
that was killed left the disk whole as seen through the overlay, and is simply done again.
"""


@click.command(
    "commit",
    epilog=EPILOG,
    short_help="Write an overlay into its backing file",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-b",
    "--base",
    metavar="BASE",
    type=LocalFile(),
    help="Write into this image further down the chain; the overlay is kept.",
)
@click.option("-d", "--keep", is_flag=True, help="Leave the overlay as it is: do not empty it.")
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option(
    "--break-overlays",
    is_flag=True,
    help="Go on although others rely on the base: they are of no use afterwards.",
)
@format_option("-f", "--format", "image_format", help="The overlay's format.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of an image's folder.")
@progress_option
@output_options()
@click.argument("overlay", metavar="OVERLAY", type=LocalFile())
def command(
    *,
    overlay: Path,
    base: Path | None,
    keep: bool,
    dry_run: bool,
    break_overlays: bool,
    image_format: str | None,
    untrusted: bool,
    progress: Kind,
    output: Output,
) -> int:
    """Write what OVERLAY holds into its backing file, or into BASE below it."""
    from imgtools.workflow.committing import Wish, commit_overlay

    wish = Wish(
        overlay=overlay,
        format=image_format,
        base=base,
        keep=keep,
        dry_run=dry_run,
        break_overlays=break_overlays,
        untrusted=untrusted,
    )
    with Part(progress, 0, name="commit", quiet=output.quiet) as part:
        result = commit_overlay(wish, part)
    if output.json:
        _print_json(result, dry_run=dry_run)
    elif not output.quiet:
        print(_line(result))
    return finish(output, result.warnings)


def _print_json(result: Committed, *, dry_run: bool) -> None:
    document = {
        "overlay": result.overlay.absolute(),
        "base": result.base,
        "base_format": result.base_format,
        "done": result.done,
        "dry_run": dry_run,
        "emptied": result.emptied and result.done,
        "grown_to": result.grown_to,
        "stale": result.stale,
        "broken": result.broken,
    }
    print_json("commit", document, warnings=result.warnings)


def _line(result: Committed) -> str:
    verb = "committed" if result.done else "would be committed"
    line = f"{safe_text(str(result.overlay))}: {verb} into {safe_text(str(result.base))}"
    if result.grown_to is not None:
        line += f", which {'has grown' if result.done else 'would grow'} to {result.grown_to} bytes"
    if result.emptied:
        line += "; the overlay is empty" if result.done else "; the overlay would be emptied"
    return line
