"""Where a new image goes: not over one that is in use, and onto a block device only when asked."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from imgtools.errors import ImageError, RefusedError, SpaceError
from imgtools.image.hold import hold_for_change
from imgtools.image.newfile import refuse_existing
from imgtools.image.plausible import host_uses_device
from imgtools.image.source import open_source
from imgtools.workflow.replacing import refuse_relied_on

_HEAD = 1 << 16  # bytes that are written last: the header is among them


def refuse_used(target: Path, *, force: bool) -> None:
    """Raise RefusedError if something is in the way of the new image ``target``.

    With ``force`` an older image may be, but none that is in use (InUseError), that others rest on,
    or that waits for ``imgtools recover``.
    """
    if target.is_block_device() and not force:
        raise RefusedError(
            f"{target}: is a block device, and what is on it would be lost",
            hint="--force overwrites it",
        )
    refuse_existing(target, force=force)
    if not target.exists():
        return
    refuse_relied_on(target)
    hold_for_change(target).release()


def onto_device(made: Path, device: Path) -> None:
    """Write the new image ``made`` onto a block device, its header last.

    Raises RefusedError for a device of this host, InUseError, SpaceError, ImageError.
    """
    with open_source(device) as source:
        if host_uses_device(source):
            raise RefusedError(f"{device}: this host itself uses that device")
        if source.size < made.stat().st_size:
            raise SpaceError(
                f"{device}: has {source.size} bytes, too few for a new image",
                hint="take a larger device",
            )
    with contextlib.closing(_Exclusive(device)) as output, made.open("rb") as stream:
        head = stream.read(_HEAD)
        offset = len(head)
        while chunk := stream.read(1 << 20):
            output.write(chunk, offset)
            offset += len(chunk)
        output.sync()
        output.write(head, 0)
        output.sync()


class _Exclusive:
    """A device that nobody else uses, open for writing."""

    def __init__(self, device: Path) -> None:
        self._hold = hold_for_change(device)
        try:
            self._hold.take_exclusive()
            self._fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        except BaseException:
            self._hold.release()
            raise
        self._device = device

    def write(self, data: bytes, offset: int) -> None:
        try:
            while data:
                count = os.pwrite(self._fd, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise ImageError(f"{self._device}: cannot be written: {error.strerror}") from error

    def sync(self) -> None:
        self._hold.sync()

    def close(self) -> None:
        os.close(self._fd)
        self._hold.release()
