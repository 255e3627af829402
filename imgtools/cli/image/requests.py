"""Images as the last words of a command, and their format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from imgtools.cli.options import make_request
from imgtools.errors import UsageError
from imgtools.model import KNOWN_FORMATS

if TYPE_CHECKING:
    from imgtools.model import DiskRequest

KINDS = click.Choice([*KNOWN_FORMATS, "vhd"])

format_option = click.option(
    "-f",
    "--format",
    "image_format",
    type=KINDS,
    metavar="FORMAT",
    help="Format of the image, for one whose content is not to be believed.",
)


def requests_of(words: Sequence[str], image_format: str | None) -> list[DiskRequest]:
    """The images that the words name.  Raises UsageError."""
    if not words:
        raise UsageError("no image named")
    kind = {"vhd": "vpc"}.get(image_format or "", image_format)
    return [make_request(word, kind) for word in words]
