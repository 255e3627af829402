"""``imgtools image rebase``, also ``imgtools rebase``: give an overlay another parent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.image.words import LocalFile, format_option, local_path
from imgtools.cli.options import Output, output_options
from imgtools.cli.progress import Kind, Part, progress_option
from imgtools.cli.render import finish, print_json, safe_text
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.workflow.rebase_chains import Wish
    from imgtools.workflow.rebasing import Rebased

EPILOG = """\b
Examples:
  imgtools rebase -b new-base.qcow2 overlay.qcow2
  imgtools rebase --flatten overlay.qcow2
  imgtools rebase -u -b moved/base.raw -F raw overlay.qcow2
  imgtools rebase --dry-run --json -b new-base.qcow2 overlay.qcow2

What the guest sees stays the same: clusters in which the two parents differ are copied into the
overlay first, and its header is written last.  A run that was killed is simply done again.

-u writes the header only.  It is done where the old parent is missing, or where both parents are
compared and found equal; otherwise it is refused (exit 8).
"""


@click.command(
    "rebase",
    epilog=EPILOG,
    short_help="Give an overlay another backing file, or none",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-b",
    "--backing",
    metavar="FILE",
    help="The new backing file, named from where you stand; '' is the same as --flatten.",
)
@format_option(
    "-F", "--backing-format", help="Its format; else its header says it.  It is always stored."
)
@click.option("--flatten", is_flag=True, help="Copy all of it: the overlay then stands alone.")
@click.option("-u", "--unsafe", is_flag=True, help="Write the header only, copy nothing.")
@format_option("-f", "--format", "image_format", help="The overlay's format.")
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of an image's folder.")
@progress_option
@output_options()
@click.argument("overlay", metavar="OVERLAY", type=LocalFile())
def command(
    *,
    overlay: Path,
    backing: str | None,
    backing_format: str | None,
    flatten: bool,
    unsafe: bool,
    image_format: str | None,
    dry_run: bool,
    untrusted: bool,
    progress: Kind,
    output: Output,
) -> int:
    """Give OVERLAY another backing file with the same content for the guest, or none."""
    from imgtools.workflow.rebase_chains import Wish

    parent = _parent(backing, flatten=flatten)
    if parent is None and (unsafe or backing_format):
        raise UsageError("-u and -F need -b FILE", hint="see --help")
    wish = Wish(
        overlay=overlay,
        format=image_format,
        parent=parent,
        parent_format=backing_format,
        unsafe=unsafe,
        dry_run=dry_run,
        untrusted=untrusted,
    )
    return _run(wish, progress, output)


def _run(wish: Wish, progress: Kind, output: Output) -> int:
    from imgtools.workflow.rebasing import rebase_overlay

    with Part(progress, 0, name="rebase", quiet=output.quiet) as part:
        result = rebase_overlay(wish, part)
    if output.json:
        _print_json(result, wish)
    elif not output.quiet:
        print(_line(result))
    return finish(output, result.warnings)


def _parent(backing: str | None, *, flatten: bool) -> Path | None:
    if flatten and backing:
        raise UsageError("--flatten and -b cannot be combined", hint="name one of them")
    if backing is None and not flatten:
        raise UsageError("rest on what?", hint="-b FILE, or --flatten for none")
    return local_path(backing) if backing else None


def _print_json(result: Rebased, wish: Wish) -> None:
    document = {
        "overlay": result.overlay.absolute(),
        "method": result.method,
        "done": result.done,
        "dry_run": wish.dry_run,
        "compared": result.compared,
        "grows_by_at_most": result.at_most,
        "old_backing_file": result.old,
        "backing_file": result.new,
        "backing_format": result.new_format,
    }
    print_json("rebase", document, warnings=result.warnings)


def _line(result: Rebased) -> str:
    name = safe_text(str(result.overlay))
    if result.method == "nothing":
        return f"{name}: stands alone already"
    verb = "" if result.done else "would be "
    if result.new is None:
        what = f"{verb}flattened: it rests on nothing"
    else:
        what = f"{verb}rebased onto {safe_text(result.new)} ({result.new_format})"
    if result.compared:
        what += "; old and new backing file are equal"
    if not result.done and result.at_most is not None:
        what += f"; it may grow by {result.at_most} bytes"
    return f"{name}: {what}"
