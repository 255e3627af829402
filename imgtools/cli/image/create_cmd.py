"""``imgtools image create``: a new, empty image, or an overlay on another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.human import human_size
from imgtools.cli.image.keys import read_key
from imgtools.cli.image.words import TARGET, Size, SizeCommand, format_option
from imgtools.cli.options import Output, output_options
from imgtools.cli.render import finish, print_json, safe_text

if TYPE_CHECKING:
    from imgtools.workflow.image_create import Created

EPILOG = """\b
Examples:
  imgtools image create guest.qcow2 20G
  imgtools image create -b base.qcow2 overlay.qcow2
  imgtools image create -f raw --preallocation falloc disk.img 512M
  imgtools image create -o extended_l2=on,cluster_size=128k,compression_type=zstd a.qcow2 1T
  imgtools image create -o encrypt.format=luks --key-file key.txt secret.qcow2 10G
  imgtools image create -f vmdk -o help

Without -f the image is a qcow2, whatever its name.  A relative backing FILE is looked for in the
folder of the new image and stored as it is given; its format is read from its header, unless -F
says that it is raw.  A data_file is stored by its absolute name.  Sizes are powers of 1024.
"""


@click.command(
    "create",
    cls=SizeCommand,
    epilog=EPILOG,
    short_help="Make a new image, or an overlay on another one",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@format_option("-f", "--format", "image_format", kind=TARGET, help="Its format  [qcow2]")
@click.option("-b", "--backing", metavar="FILE", help="The image that it rests on.")
@format_option("-F", "--backing-format", help="That image's format.")
@click.option(
    "-o",
    "--option",
    "words",
    multiple=True,
    metavar="NAME=VALUE,...",
    help="Options of the format.",
)
@click.option(
    "--preallocation",
    type=click.Choice(["off", "metadata", "falloc", "full"]),
    help="Take its space at once; the free space is looked at first.",
)
@click.option(
    "--key-file", metavar="FILE", help="Encrypt it (LUKS) with the key in FILE; - is stdin."
)
@click.option("--force", is_flag=True, help="Overwrite an older file, or a block device.")
@output_options()
@click.argument("target", required=False)
@click.argument("size", required=False, type=Size())
def command(
    *,
    output: Output,
    image_format: str | None,
    backing: str | None,
    backing_format: str | None,
    words: tuple[str, ...],
    preallocation: str | None,
    key_file: str | None,
    force: bool,
    target: str | None,
    size: int | None,
) -> int:
    """Make the image TARGET of SIZE bytes (with k, M, G, T, P, E: powers of 1024).

    SIZE may be left out for an overlay, which is then as large as its backing file.
    """
    from imgtools.errors import UsageError
    from imgtools.image.options import parse_options
    from imgtools.workflow.image_create import NewImage, create, refuse_both

    if "help" in words or "?" in words:
        return _print_options(image_format or "qcow2", output)
    if not target:
        raise UsageError("which image?", hint="imgtools image create guest.qcow2 10G")
    new = NewImage(
        target=Path(target),
        format=image_format,
        size=size,
        backing=backing,
        backing_format=backing_format,
        options=refuse_both(parse_options(words), preallocation),
        key=read_key(key_file) if key_file is not None else None,
        force=force,
    )
    created = create(new)
    if output.json:
        print_json("image-create", _json(created), warnings=created.warnings)
    elif not output.quiet:
        _print(created)
    return finish(output, created.warnings)


def _print(created: Created) -> None:
    size = f"{human_size(created.virtual_size)} ({created.virtual_size} bytes)"
    words = [f"{created.image}: {created.format}, {size}"]
    if created.backing_file is not None:
        words.append(f"on {created.backing_file} ({created.backing_format})")
    if created.data_file is not None:
        words.append(f"data in {created.data_file}")
    if created.encrypted:
        words.append("encrypted")
    print(safe_text(", ".join(words)))


def _json(created: Created) -> dict[str, object]:
    hidden = ("key-secret", "encrypt.key-secret")
    return {
        "image": created.image.absolute(),
        "format": created.format,
        "virtual_size": created.virtual_size,
        "backing_file": created.backing_file,
        "backing_format": created.backing_format,
        "data_file": created.data_file,
        "encrypted": created.encrypted,
        "options": {name: text for name, text in created.options.items() if name not in hidden},
    }


def _print_options(image_format: str, output: Output) -> int:
    from imgtools.cli.render import print_columns
    from imgtools.errors import UsageError
    from imgtools.image.options import options_of

    known = options_of(image_format)
    if not known:
        raise UsageError(f"-f {image_format}: this qemu-img cannot make images of that format")
    if output.json:
        print_json(
            "image-create",
            {"format": image_format, "options": [one._asdict() for one in known.values()]},
        )
    else:
        print_columns([(one.name, one.type, one.text) for one in known.values()], gap="  ")
    return 0
