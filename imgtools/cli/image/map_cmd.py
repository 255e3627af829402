"""``imgtools image map``: where an image's data lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.changing import parse_size
from imgtools.cli.image.requests import format_option, requests_of
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import safe_text
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.model import Disk

EPILOG = """\b
Examples:
  imgtools image map overlay.qcow2
  imgtools image map --start-offset 1G --max-length 16M guest.qcow2
  imgtools image map --json guest.qcow2 | jq '[.result.extents[] | select(.data) | .length] | add'

LAYER is 0 for the image itself, 1 for its backing file, and so on; AT is where in the layer's file
the bytes lie, and "-" where they do not lie there as they are (compressed, or encrypted).
"""


@click.command("map", epilog=EPILOG, short_help="Show where an image's data lies")
@click.option("--start-offset", metavar="SIZE", help="Begin there (bytes, or as 1G).")
@click.option("--max-length", metavar="SIZE", help="At most that much.")
@format_option
@click.option("--untrusted", is_flag=True, help="Follow no reference out of the image's folder.")
@output_options()
@click.argument("image")
def command(
    output: Output,
    start_offset: str | None,
    max_length: str | None,
    image_format: str | None,
    untrusted: bool,
    image: str,
) -> int:
    """Show what of IMAGE is data, zeros or nothing, and in which layer of its chain."""
    from imgtools.workflow.comparing import mapped

    start = parse_size(start_offset) if start_offset is not None else 0
    length = parse_size(max_length) if max_length is not None else None
    if length == 0:
        raise UsageError("--max-length 0: nothing to show")
    (request,) = requests_of([image], image_format)
    with mapped(request, untrusted=untrusted, start=start, length=length) as (disk, extents):
        if output.json:
            _print_json(extents)
        else:
            _print(disk, extents)
    return 0


def _print_json(extents: Iterator[dict[str, Any]]) -> None:
    from imgtools.cli.json_stream import JsonStream

    stream = JsonStream("image-map")
    for extent in extents:
        stream.add(extent)
    stream.finish("extents", engine=None)


def _print(disk: Disk, extents: Iterator[dict[str, Any]]) -> None:
    print(f"{'START':>16} {'LENGTH':>16}  KIND  LAYER {'AT':>16}  FILE")
    for extent in extents:
        depth, at = extent["depth"], extent.get("offset", "-")
        present = extent.get("present", True)
        kind = "data" if extent["data"] else "zero" if present else "none"
        name = safe_text(str(disk.layers[depth].path)) if kind != "none" else ""
        layer = str(depth) if kind != "none" else "-"
        line = (
            f"{extent['start']:>16} {extent['length']:>16}  {kind:4}  {layer:>5} {at:>16}  {name}"
        )
        print(line.rstrip())
