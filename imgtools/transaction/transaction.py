"""One change of the disks of one guest: locked, on overlays, committed whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from imgtools.errors import CommitError, InUseError, ReadOnlyError, RefusedError, SpaceError
from imgtools.image.children import overlays_of
from imgtools.image.hold import Hold, holding
from imgtools.model.disks import Disk
from imgtools.process import inheriting, signals_later
from imgtools.transaction import record as records
from imgtools.transaction import space
from imgtools.transaction.commit import check_overlay, sync_overlay, write_all
from imgtools.transaction.record import Record, RecordedDisk, hidden_name, identity_of
from imgtools.transaction.recovery import resizes_of

WRITABLE = ("raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels", "luks")
"""Formats that qemu can write; some of their variants it cannot, and qemu-img says so."""


class Transaction:
    """Use as a context manager: left without `commit`, every overlay is thrown away.

    ``overlays`` are the paths at which the appliance is to make the overlays of the disks.
    ``break_overlays`` allows an image to change that is the backing file of another one.
    ``file_level``: the disks are the bytes of image files (raw), whatever is in those.
    """

    def __init__(
        self,
        disks: Sequence[Disk],
        *,
        command: str,
        workdir: Path | None = None,
        break_overlays: bool = False,
        file_level: bool = False,
    ) -> None:
        self.disks = tuple(disks)
        self._images = [_image_of(disk) for disk in disks]
        if not break_overlays:
            for image in self._images:
                _refuse_overlays(image)
        self.overlays = [_overlay_path(image, workdir) for image in self._images]
        self._command = command
        self._file_level = file_level
        self._record: Record
        self._holds: list[Hold] = []
        self._extents: list[Hold] = []
        self._stack = contextlib.ExitStack()
        self._committing = False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            files = [(image, True) for image in self._images]
            for disk in self.disks:
                files += [(path, True) for path in disk.layers[0].extents]
                for layer in disk.layers[1:]:
                    files += [(path, False) for path in (layer.path, *layer.extents)]
            holds = stack.enter_context(holding(files))
            self._holds = holds[: len(self._images)]
            self._extents = [hold for hold in holds if hold.path in _opened_by_name(self.disks)]
            self._refuse_records()
            space.check_start(self.folders)
            self._record = self._begun()
            stack.callback(self._forget)
            records.write(self._record)
            self._stack = stack.pop_all()
        return self

    def _refuse_records(self) -> None:
        """Now that we hold the images nobody else makes records: none may be overwritten.

        What was interrupted is finished before, but an imgtools may have been killed since then.
        """
        for image in self._images:
            if records.find(image) is not None:
                raise InUseError(
                    f"{image}: another change of this image was interrupted just now",
                    hint="try again: it is finished first",
                )

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def folders(self) -> list[Path]:
        """The folders in which the overlays grow."""
        return [overlay.parent for overlay in self.overlays]

    def resize(self, size: int, preallocation: str = "off") -> None:
        """With the commit the only image gets this virtual size; its overlay has it already."""
        (disk,) = self._record.disks
        disk = replace(disk, new_size=size, preallocation=preallocation)
        self._record = replace(self._record, disks=(disk,))

    def commit(self) -> None:
        """Bring the overlays into the images.  The appliance must have ended.

        Until the record is written, any error leaves the images as they were: ImageError for a
        damaged overlay, InUseError, SpaceError.  Afterwards CommitError says that
        ``imgtools recover`` has to finish; a signal waits until the commit is done.
        """
        for overlay in self.overlays:
            check_overlay(overlay)
        for disk, image, overlay in zip(self.disks, self._images, self.overlays, strict=True):
            space.check_commit(image, disk.layers[0].format, overlay)
        for hold in self._holds:
            hold.take_exclusive()
        for hold in self._extents:
            hold.release()  # qemu opens these with locks of its own
        for overlay in self.overlays:
            sync_overlay(overlay)
        committing = replace(self._record, state="committing")
        holds = [hold.fileno() for hold in self._holds]
        with signals_later(), inheriting(holds):
            self._committing = True
            try:
                records.write(committing)
            except SpaceError:
                self._committing = False
                raise
            self._write()
            for hold in self._holds:
                hold.sync()
            records.finish(committing)
            self._committing = False

    def _write(self) -> None:
        before = [_written(image) for image in self._images]
        try:
            write_all(self.disks, self.overlays, resizes_of(self._record))
        except CommitError as error:
            # Some variants (streamOptimized vmdk) open for writing, and then take nothing.
            if None in before or before != [_written(image) for image in self._images]:
                raise
            self._committing = False
            raise ReadOnlyError(
                f"{error.message.partition(';')[0]}; nothing was written, the image is as it was",
                hint="if its format cannot be written, convert it: qemu-img convert -O qcow2",
            ) from error

    def _begun(self) -> Record:
        return Record(
            state="working",
            command=self._command,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            disks=tuple(
                RecordedDisk(
                    image=os.fspath(image),
                    format=disk.layers[0].format,
                    identity=identity_of(image),
                    size=disk.layers[0].virtual_size,
                    overlay=os.fspath(overlay),
                    file_level=self._file_level,
                )
                for disk, image, overlay in zip(
                    self.disks, self._images, self.overlays, strict=True
                )
            ),
        )

    def _forget(self) -> None:
        """Throw the overlays away, unless a commit that stopped half-way still needs them."""
        if self._committing:
            return
        for overlay in self.overlays:
            overlay.unlink(missing_ok=True)
        records.remove(self._record)


def _opened_by_name(disks: Sequence[Disk]) -> set[Path]:
    """The extents of VMDKs, of which qemu takes no node, so that ``locking`` cannot be said."""
    layers = (disk.layers[0] for disk in disks)
    return {path for layer in layers if layer.format == "vmdk" for path in layer.extents}


def _written(image: Path) -> tuple[int, int] | None:
    """What moves with every write to a file; None for a device, of which nothing tells."""
    if image.is_block_device():
        return None
    status = image.stat()
    return status.st_mtime_ns, status.st_size


def _image_of(disk: Disk) -> Path:
    """The file to be changed, by its real path: beside that one the overlay and record lie."""
    if not disk.layers:
        raise ReadOnlyError(
            f"{disk.name}: a remote image cannot be changed safely (nobody can lock it)",
            hint="copy it here first, change the copy, and copy it back",
        )
    layer = disk.layers[0]
    if layer.format not in WRITABLE:
        raise ReadOnlyError(
            f"{disk.name}: images of the format {layer.format} cannot be written",
            hint="convert it first: qemu-img convert -O qcow2",
        )
    return Path(os.path.realpath(layer.path))


def _refuse_overlays(image: Path) -> None:
    if image.is_block_device():
        return
    # Our own overlay of an interrupted change is no one's loss: it is dealt with before.
    above = [path for path in overlays_of(image) if ".imgtools-" not in path.name]
    if above:
        more = f" and {len(above) - 1} more" if len(above) > 1 else ""
        raise RefusedError(
            f"{image}: {above[0].name}{more} rests on it, and would be broken by a change",
            hint="change the overlay instead, or --break-overlays if it is not needed any more",
        )


def _overlay_path(image: Path, workdir: Path | None) -> Path:
    token = secrets.token_hex(4)
    if workdir is None and image.is_block_device():
        raise ReadOnlyError(
            f"{image}: a block device has no folder for the overlay",
            hint="name one with --workdir DIR",
        )
    folder = image.parent if workdir is None else workdir.resolve()
    if not folder.is_dir():
        raise ReadOnlyError(f"{folder}: no such folder for the overlay", hint="--workdir DIR")
    return folder / hidden_name(image.name, f".imgtools-{token}.qcow2")
