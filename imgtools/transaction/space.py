"""Free space, measured before a change and watched during it.

A qemu whose overlay's file system runs full stops the appliance where it stands (``werror=enospc``)
and libguestfs waits for ever: so the work is ended a little before that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from imgtools.errors import SpaceError

FLOOR = 16 << 20
"""Bytes that must stay free where the overlays lie."""
START = 64 << 20
"""Bytes that must be free there to begin: a file system's journal and some files."""
_INTERVAL = 0.1  # seconds


def free(folder: Path) -> int:
    """Bytes that we may still write in ``folder``."""
    found = os.statvfs(folder)
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def check_start(folders: Sequence[Path]) -> None:
    """Raise SpaceError where there is too little space to begin."""
    for folder in sorted(set(folders)):
        if (left := free(folder)) < START:
            raise SpaceError(
                f"{folder}: {left >> 20} MiB free, a change needs {START >> 20} MiB there",
                hint="free some space, or name a folder on another disk with --workdir",
            )


def check_commit(image: Path, image_format: str, overlay: Path) -> None:
    """Raise SpaceError if ``image`` may not be able to take what is in ``overlay``.

    The bound is from above: what is overwritten in place needs no space, but only qemu knows which
    clusters those are.  A device, or a raw image without holes, needs none at all.
    """
    status = image.stat()
    whole = image_format == "raw" and status.st_blocks * 512 >= status.st_size
    if whole or image.is_block_device():
        return
    needed, left = overlay.stat().st_blocks * 512, free(image.parent)
    if left < needed:
        raise SpaceError(
            f"{image}: the change may take up to {needed >> 20} MiB in {image.parent}, where "
            f"{left >> 20} MiB are free; the image is as it was",
            hint="free some space there and try again",
        )


class Watch:
    """Calls ``on_low(error)`` once, from a thread, when the space in a folder falls below FLOOR."""

    def __init__(self, folders: Sequence[Path], on_low: Callable[[SpaceError], None]) -> None:
        self._folders = sorted(set(folders))
        self._on_low = on_low
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="imgtools-space", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_INTERVAL):
            for folder in self._folders:
                left = free(folder)
                if left < FLOOR:
                    self._on_low(
                        SpaceError(
                            f"{folder}: the disk is nearly full ({left >> 20} MiB left): the "
                            "change was given up, the image is as it was",
                            hint="free some space, or name a folder on another disk with --workdir",
                        )
                    )
                    return
