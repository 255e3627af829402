"""``imgtools image``: everything that is done with image files themselves."""

from __future__ import annotations

import click

from imgtools.cli.lazy import LazyGroup

COMMANDS: dict[str, str] = {
    "amend": "imgtools.cli.image.amend_cmd",
    "bitmap": "imgtools.cli.image.bitmap_cmd",
    "chain": "imgtools.cli.image.chain_cmd",
    "check": "imgtools.cli.image.check_cmd",
    "commit": "imgtools.cli.image.commit_cmd",
    "compare": "imgtools.cli.image.compare_cmd",
    "convert": "imgtools.cli.image.convert_cmd",
    "create": "imgtools.cli.image.create_cmd",
    "info": "imgtools.cli.info_cmd",
    "map": "imgtools.cli.image.map_cmd",
    "measure": "imgtools.cli.image.measure_cmd",
    "read": "imgtools.cli.image.read_cmd",
    "rebase": "imgtools.cli.image.rebase_cmd",
    "resize": "imgtools.cli.image.resize_cmd",
    "snapshot": "imgtools.cli.image.snapshot_cmd",
    "write": "imgtools.cli.image.write_cmd",
}

EPILOG = """\b
Examples:
  imgtools image info guest.qcow2
  imgtools image check guest.qcow2
  imgtools image compare old.qcow2 new.vmdk
  imgtools image chain /var/lib/libvirt/images
  imgtools image commit overlay.qcow2
  imgtools image rebase -b new-base.qcow2 overlay.qcow2
  imgtools image create -b base.qcow2 overlay.qcow2
  imgtools image convert -O qcow2 guest.vmdk guest.qcow2
  imgtools image measure -O qcow2 guest.vmdk
  imgtools image snapshot create guest.qcow2 before-upgrade
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
