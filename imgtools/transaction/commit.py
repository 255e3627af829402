"""Write complete overlays into their images: the one place where an image that exists is written.

``qemu-img commit`` copies every cluster of the overlay; done again from the start it gives the same
image, so what was interrupted is repeated whole.  The base is opened with ``locking=off``, since we
hold its locks ourselves (see ``image.hold``), and with every layer's driver spelled out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from imgtools.appliance.overlay import commit_node, overlay_node
from imgtools.errors import CommitError, ImageError, ToolError
from imgtools.model import Disk
from imgtools.process import run
from imgtools.transaction.record import sync

COMMIT_TIMEOUT = 24 * 3600.0
CHECK_TIMEOUT = 3600.0


def check_overlay(overlay: Path) -> None:
    """Have qemu-img look at every reference of an overlay.  Raises ImageError for any fault."""
    try:
        with tempfile.TemporaryDirectory(prefix="imgtools-") as folder:
            # Alone: what its header says of a backing file is the appliance's name of a node.
            spec = "json:" + json.dumps({**overlay_node(overlay, Path(folder)), "backing": None})
            run(["qemu-img", "check", "-q", spec], timeout=CHECK_TIMEOUT)
    except ToolError as error:
        raise ImageError(
            f"{overlay}: the overlay with the change is damaged ({error.message}); "
            "the image is as it was",
            hint="the storage may be failing; see dmesg",
        ) from error


def sync_overlay(path: Path) -> None:
    """Bring an overlay and its name to their storage.  Raises ImageError."""
    try:
        sync(path)
        sync(path.parent)
    except OSError as error:
        raise ImageError(f"{path}: cannot be brought to its storage: {error.strerror}") from error


def write_all(disks: Sequence[Disk], overlays: Sequence[Path]) -> None:
    """Write every overlay into its disk's active layer.  Raises CommitError; do it again then."""
    for disk, overlay in zip(disks, overlays, strict=True):
        _write(disk, overlay)


def _write(disk: Disk, overlay: Path) -> None:
    image = disk.layers[0].path
    with tempfile.TemporaryDirectory(prefix="imgtools-") as folder:
        spec = "json:" + json.dumps(commit_node(disk, overlay, Path(folder)))
        try:
            run(["qemu-img", "commit", "-q", "-d", spec], timeout=COMMIT_TIMEOUT)
        except ToolError as error:
            why = error.message.replace(spec, str(image))
            raise CommitError(
                f"{image}: the commit stopped half-way: {why}; nothing is lost, but the image is "
                "not usable until it is finished",
                hint=f"mend the cause (disk full?), then: imgtools recover {image}",
            ) from error
