"""``imgtools image map``: where an image's data lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.image.keys import key_option, read_key
from imgtools.cli.image.requests import requests_of
from imgtools.cli.image.words import SOURCE, Size, format_option
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import finish, safe_text

if TYPE_CHECKING:
    from imgtools.model.disks import Disk
    from imgtools.model.notices import Notice

EPILOG = """\b
Examples:
  imgtools image map overlay.qcow2
  imgtools image map --key-file key.txt secret.qcow2
  imgtools image map --start-offset 1G --max-length 16M guest.qcow2
  imgtools image map --json guest.qcow2 | jq '[.result.extents[] | select(.data) | .length] | add'

LAYER is 0 for the image itself, 1 for its backing file, and so on; AT is where in the layer's file
the bytes lie, and "-" where they do not lie there as they are (compressed).  Without a key a LUKS
container is a raw image; with --key-file what is inside it is shown.
"""


@click.command("map", epilog=EPILOG, short_help="Show where an image's data lies")
@click.option(
    "--start-offset", "start", type=Size(least=0), default=0, help="Begin there (bytes, or as 1G)."
)
@click.option("--max-length", "length", type=Size(), help="At most that much (bytes, or as 16M).")
@format_option(
    "-f",
    "--format",
    "image_format",
    kind=SOURCE,
    help="Format of the image, for one whose content is not to be believed.",
)
@key_option("--key-file", help="Key of an encrypted image.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of the image's folder.")
@output_options()
@click.argument("image")
def command(
    output: Output,
    *,
    start: int,
    length: int | None,
    image_format: str | None,
    key_file: str | None,
    untrusted: bool,
    image: str,
) -> int:
    """Show what of IMAGE is data, zeros or nothing, and in which layer of its chain."""
    from imgtools.workflow.comparing import mapped
    from imgtools.workflow.opening import pending_notices

    (request,) = requests_of([image], image_format)
    key = read_key(key_file, "--key-file")
    opened = mapped(request, untrusted=untrusted, start=start, length=length, key=key)
    with opened as (disk, extents):
        notices = pending_notices([disk])
        if output.json:
            _print_json(extents, notices)
        else:
            _print(disk, extents)
    return finish(output, notices)


def _print_json(extents: Iterator[dict[str, Any]], notices: list[Notice]) -> None:
    from imgtools.cli.json_stream import JsonStream

    stream = JsonStream("image-map")
    for extent in extents:
        stream.add(extent)
    stream.finish("extents", engine=None, warnings=notices)


def _print(disk: Disk, extents: Iterator[dict[str, Any]]) -> None:
    print(f"{'START':>16} {'LENGTH':>16}  KIND  LAYER {'AT':>16}  FILE")
    for extent in extents:
        depth, at = extent["depth"], extent.get("offset", "-")
        present = extent.get("present", True)
        kind = "data" if extent["data"] else "zero" if present else "none"
        name = safe_text(disk.request.uri or str(disk.layers[depth].path)) if kind != "none" else ""
        layer = str(depth) if kind != "none" else "-"
        line = (
            f"{extent['start']:>16} {extent['length']:>16}  {kind:4}  {layer:>5} {at:>16}  {name}"
        )
        print(line.rstrip())
