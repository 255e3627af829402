"""``imgtools image``: everything that is done with image files themselves."""

from __future__ import annotations

import click

from imgtools.cli.lazy import LazyGroup

COMMANDS: dict[str, str] = {
    "amend": "imgtools.cli.image.amend_cmd",
    "create": "imgtools.cli.image.create_cmd",
    "info": "imgtools.cli.info_cmd",
    "read": "imgtools.cli.image.read_cmd",
    "resize": "imgtools.cli.image.resize_cmd",
    "write": "imgtools.cli.image.write_cmd",
}

EPILOG = """\b
Examples:
  imgtools image info guest.qcow2
  imgtools image create -b base.qcow2 overlay.qcow2
  imgtools image resize guest.qcow2 +10G
"""


@click.group(
    "image",
    cls=LazyGroup,
    modules=COMMANDS,
    epilog=EPILOG,
    short_help="Make, convert, resize, check and compare image files",
    context_settings={"max_content_width": 100},
)
def command() -> None:
    """What qemu-img does, with every format checked first and nothing half-written."""
