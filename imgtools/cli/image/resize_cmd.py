"""``imgtools image resize``: another virtual size, with the GPT moved and no partition cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from imgtools.cli.changing import CHANGE_OPTIONS
from imgtools.cli.human import human_size
from imgtools.cli.image.words import Size, SizeCommand, format_option
from imgtools.cli.options import Output, make_request, output_options, with_options
from imgtools.cli.render import finish, print_json, safe_text

if TYPE_CHECKING:
    from imgtools.workflow.image_resize import Resized

EPILOG = """\b
Examples:
  imgtools image resize guest.qcow2 +10G
  imgtools image resize guest.qcow2 40G
  imgtools image resize --shrink -n guest.qcow2 8G
  imgtools image resize --format raw --preallocation falloc disk.img +1G

Without a sign SIZE is the new size, + and - make it a difference; k, M, G, T, P, E are powers of
1024.  The backup of a GPT goes to the new end of the disk.  A disk never becomes smaller than what
is on it: the error says the smallest safe size.  Killed at any point, the image has the old size or
the new one, once imgtools recover (or the next command) has looked at it.
"""

_OPTIONS = [
    click.option("--shrink", is_flag=True, help="Allow a smaller size."),
    click.option(
        "--preallocation",
        type=click.Choice(["off", "metadata", "falloc", "full"]),
        default="off",
        help="Take the new space at once.",
    ),
    click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done."),
    format_option("-f", "--format", "image_format", help="Format of the image."),
    click.option(
        "--blocksize", type=click.Choice(["512", "4096"]), help="Sector size of the guest's disk."
    ),
    click.option("--untrusted", is_flag=True, help="Follow no reference out of its folder."),
    CHANGE_OPTIONS["workdir"],
    CHANGE_OPTIONS["break_overlays"],
]


@click.command(
    "resize",
    cls=SizeCommand,
    epilog=EPILOG,
    short_help="Make an image larger or smaller, its GPT moved, no partition cut",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@output_options()
@click.argument("image")
@click.argument("size", type=Size(least=0, relative=True), metavar="[+|-]SIZE")
def command(*, output: Output, image: str, size: tuple[Any, int], **options: Any) -> int:
    """Give IMAGE (raw or qcow2) another virtual size."""
    from imgtools.workflow.image_resize import Resizing, resize

    block_size: Literal[512, 4096] = 4096 if options.pop("blocksize") == "4096" else 512
    request = make_request(image, options.pop("image_format"), block_size)
    workdir = options.pop("workdir")
    asked = Resizing(
        request=request,
        sign=size[0],
        size=size[1],
        workdir=Path(workdir) if workdir else None,
        **options,
    )
    done = resize(asked)
    if output.json:
        print_json("image-resize", _json(done, dry_run=asked.dry_run), warnings=done.warnings)
    elif not output.quiet or asked.dry_run:
        _print(done, dry_run=asked.dry_run)
    return finish(output, done.warnings)


def _print(done: Resized, *, dry_run: bool) -> None:
    old, new = (f"{human_size(size)} ({size} bytes)" for size in (done.old_size, done.new_size))
    name = safe_text(done.image)
    if done.old_size == done.new_size and done.moved is None:
        print(f"{name}: has {new} already")
        return
    print(f"{name}: {old} -> {new}" + (", dry run: nothing done" if dry_run else ""))
    if done.moved is not None:
        verb = "would move" if dry_run else "moved"
        print(f"  GPT: backup {verb} from byte {done.moved[0]} to {done.moved[1]}")


def _json(done: Resized, *, dry_run: bool) -> dict[str, object]:
    moved = None if done.moved is None else {"from": done.moved[0], "to": done.moved[1]}
    return {
        "image": done.image,
        "format": done.format,
        "old_size": done.old_size,
        "new_size": done.new_size,
        "committed": done.committed,
        "dry_run": dry_run,
        "table": done.table,
        "smallest_size": done.smallest,
        "last_partition": done.last_partition,
        "gpt_backup_moved": moved,
    }
