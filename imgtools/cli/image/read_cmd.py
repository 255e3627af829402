"""``imgtools image read``: a range of bytes of a guest's disk."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from imgtools.cli.image.words import SOURCE, Size, SizeCommand, format_option
from imgtools.cli.options import Output, make_request, output_options
from imgtools.cli.render import finish, print_json
from imgtools.errors import OutputError, SpaceError, UsageError

EPILOG = """\b
Examples:
  imgtools image read guest.qcow2 0 512 | xxd
  imgtools image read -o esp.img guest.vmdk 1M 512M

OFFSET and LENGTH are bytes of the disk as the guest sees it; k, M, G, T, P, E are powers of 1024.
"""


@click.command(
    "read",
    cls=SizeCommand,
    epilog=EPILOG,
    short_help="Read a range of bytes of the guest's disk",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-o", "--output", "target", metavar="FILE", help="Write to FILE, not to stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@format_option("-f", "--format", "image_format", kind=SOURCE, help="Format of the image.")
@click.option("--untrusted", is_flag=True, help="Follow no reference out of its folder.")
@output_options()
@click.argument("image")
@click.argument("offset", type=Size(least=0))
@click.argument("length", type=Size())
def command(
    *,
    output: Output,
    target: str | None,
    force: bool,
    image_format: str | None,
    untrusted: bool,
    image: str,
    offset: int,
    length: int,
) -> int:
    """Read LENGTH bytes at OFFSET of the disk in IMAGE."""
    from imgtools.workflow.image_bytes import reading, save
    from imgtools.workflow.images import files_of
    from imgtools.workflow.opening import pending_notices

    request = make_request(image, image_format)
    if target is None and (output.json or sys.stdout.isatty()):
        what = "with --json" if output.json else "on a terminal"
        raise UsageError(f"the bytes of a disk are not shown {what}", hint="-o FILE")
    with reading(request, offset, length, untrusted=untrusted) as (disk, pieces):
        notices = pending_notices([disk])
        if target is None:
            save(pieces, sys.stdout.buffer)
        else:
            _save_as(Path(target), pieces, files_of(disk), force=force)
    if output.json:
        document = {"image": disk.name, "offset": offset, "length": length, "output": target}
        print_json("image-read", document, warnings=notices)
    return finish(output, notices)


def _save_as(target: Path, pieces: Iterator[bytes], sources: list[Path], *, force: bool) -> None:
    from imgtools.image.newfile import new_file
    from imgtools.workflow.image_bytes import save
    from imgtools.workflow.replacing import replacing

    with new_file(target, force=force, sources=sources) as made, replacing(target):
        try:
            with made.open("xb") as stream:
                save(pieces, stream)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise SpaceError(
                    f"{target}: the storage is full", hint="write to another disk"
                ) from error
            raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
