"""What the verbs about the inside of one qcow2 image share: the image's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgtools.cli.image.words import LocalFile, format_option
from imgtools.cli.options import output_options, with_options

if TYPE_CHECKING:
    from imgtools.workflow.qcow2 import Place

qcow2_image = with_options(
    [
        format_option("-f", "--format", "image_format", help="The image's format."),
        click.option(
            "--untrusted", is_flag=True, help="Follow no reference out of the image's folder."
        ),
        output_options(),
        click.argument("image", metavar="IMAGE", type=LocalFile()),
    ]
)


def place_of(image: Path, image_format: str | None, *, untrusted: bool) -> Place:
    """The image as the workflow takes it."""
    from imgtools.workflow.qcow2 import Place

    return Place(image=image, format=image_format, untrusted=untrusted)
