"""Write complete overlays into their images: the one place where an image that exists is written.

``qemu-img commit`` copies every cluster of the overlay; done again from the start it gives the same
image, so what was interrupted is repeated whole.  The base is opened with ``locking=off``, since we
hold its locks ourselves (see ``image.hold``), and with every layer's driver spelled out.
"""

from __future__ import annotations

import fcntl
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from imgtools.appliance.overlay import chain_node, commit_node, overlay_node
from imgtools.errors import CommitError, ImageError, InUseError, ToolError
from imgtools.model.disks import Disk
from imgtools.nodes import spec
from imgtools.process import run
from imgtools.transaction.record import sync

COMMIT_TIMEOUT = 24 * 3600.0
CHECK_TIMEOUT = 3600.0


class Resize(NamedTuple):
    """The virtual size in bytes that an image gets with a commit, and how it takes the space."""

    size: int
    preallocation: str = "off"


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


def write_all(
    disks: Sequence[Disk], overlays: Sequence[Path], resizes: Sequence[Resize | None]
) -> None:
    """Write every overlay into its disk's active layer, which gets its new size, if any.

    Raises CommitError; do it again then.  InUseError while a killed run's qemu-img still writes.
    """
    for disk, overlay, resize in zip(disks, overlays, resizes, strict=True):
        with overlay.open("rb") as lock:
            _take(lock.fileno(), overlay)
            _write(disk, overlay, resize, lock.fileno())


def _take(fd: int, overlay: Path) -> None:
    """Lock the overlay.  Our qemu-img inherits the lock: should we be killed, it keeps it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(
            f"{overlay}: a qemu-img whose imgtools was killed is still writing it to the image",
            hint="wait until it is done, and try again",
        ) from None


def _write(disk: Disk, overlay: Path, resize: Resize | None, lock: int) -> None:
    old, new = disk.layers[0].virtual_size, resize.size if resize else disk.layers[0].virtual_size
    with tempfile.TemporaryDirectory(prefix="imgtools-") as name:
        folder = Path(name)
        image = spec(chain_node(disk, folder, writable=True))
        if resize is not None and new > old:
            words = ["qemu-img", "resize", "-q", f"--preallocation={resize.preallocation}"]
            _run([*words, image], [str(new)], disk, lock)
        _run(
            ["qemu-img", "commit", "-q", "-d", spec(commit_node(disk, overlay, folder))],
            [],
            disk,
            lock,
        )
        if new < old:
            _run(["qemu-img", "resize", "-q", "--shrink", image], [str(new)], disk, lock)


def _run(words: list[str], rest: list[str], disk: Disk, lock: int) -> None:
    """Run qemu-img; the last of ``words`` is a node, which messages are not to show."""
    image = disk.layers[0].path
    try:
        run([*words, *rest], timeout=COMMIT_TIMEOUT, pass_fds=(lock,))
    except ToolError as error:
        why = error.message.replace(words[-1], str(image))
        raise CommitError(
            f"{image}: the commit stopped half-way: {why}; nothing is lost, but the image is "
            "not usable until it is finished",
            hint=f"mend the cause (disk full?), then: imgtools recover {image}",
        ) from error
