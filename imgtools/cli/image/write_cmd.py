"""``imgtools image write``: put bytes onto a guest's disk."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from imgtools.cli.changing import CHANGE_OPTIONS
from imgtools.cli.image.words import Size, SizeCommand, format_option
from imgtools.cli.options import Output, make_request, output_options, with_options
from imgtools.cli.progress import Kind, Part, progress_option
from imgtools.cli.render import finish, print_json, safe_text
from imgtools.errors import UsageError

EPILOG = """\b
Examples:
  imgtools image write --from boot.img guest.qcow2 0
  imgtools image write --from - -n guest.qcow2 1M < esp.img

OFFSET is in bytes of the disk as the guest sees it; k, M, G, T, P, E are powers of 1024.  It is one
transaction: killed at any point, the disk has all of it or nothing, once imgtools recover (or the
next command) has looked at it.
"""

_OPTIONS = [
    click.option("--from", "source", metavar="FILE", help="What to write; - is stdin."),
    click.option("-n", "--dry-run", is_flag=True, help="Only see whether it fits."),
    format_option("-f", "--format", "image_format", help="Format of the image."),
    click.option("--untrusted", is_flag=True, help="Follow no reference out of its folder."),
    CHANGE_OPTIONS["workdir"],
    CHANGE_OPTIONS["break_overlays"],
    progress_option,
]


@click.command(
    "write",
    cls=SizeCommand,
    epilog=EPILOG,
    short_help="Write bytes to the guest's disk, all or nothing",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(_OPTIONS)
@output_options()
@click.argument("image")
@click.argument("offset", type=Size(least=0))
def command(
    *,
    output: Output,
    source: str | None,
    image: str,
    offset: int,
    progress: Kind,
    **options: Any,
) -> int:
    """Write what FILE has to the disk in IMAGE, at OFFSET."""
    from imgtools.workflow.image_bytes import Writing, source_size, write_range

    if source is None:
        raise UsageError("write what?", hint="--from FILE, or --from - for stdin")
    workdir = options.pop("workdir")
    asked = Writing(
        request=make_request(image, options.pop("image_format")),
        offset=offset,
        workdir=Path(workdir) if workdir else None,
        **options,
    )
    with (
        _opened(source) as stream,
        Part(progress, source_size(stream), name="write", quiet=output.quiet) as part,
    ):
        length = write_range(asked, stream, part)
    committed = bool(length) and not asked.dry_run
    if output.json:
        document = {
            "image": image,
            "offset": offset,
            "length": length,
            "committed": committed,
            "dry_run": asked.dry_run,
        }
        print_json("image-write", document)
    elif not output.quiet or asked.dry_run:
        verb = "written" if committed else "fit, nothing written"
        print(safe_text(f"{image}: {length} bytes at {offset} {verb}"))
    return finish(output, ())


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise UsageError(f"--from {name}: cannot be read: {error.strerror}") from None
        yield stream
