"""Finish what was interrupted, by the record that it left beside the image."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgtools.appliance.overlay import chain_node
from imgtools.errors import ImgtoolsError, InUseError, JournalError, ToolError
from imgtools.image.hold import hold_for_change, holding
from imgtools.model.disks import Disk
from imgtools.process import inheriting, run, signals_later
from imgtools.transaction import record as records
from imgtools.transaction.commit import CHECK_TIMEOUT, Resize, write_all
from imgtools.transaction.record import Record, RecordedDisk, identity_of

Action = Literal["finish", "discard", "clean", "busy"]
_ACTIONS: dict[records.State, Action] = {
    "working": "discard",
    "committing": "finish",
    "committed": "clean",
}

Resolve = Callable[[Path, str], Disk]
"""From a path and a format to a vetted disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """An interrupted change of ``images``: its commit is to be finished, or its overlays discarded.

    ``clean``: it was complete, only the overlays are left; ``busy``: it is not interrupted, another
    imgtools is at work.
    """

    images: tuple[str, ...]
    action: Action
    command: str
    started: str


def find_interrupted(image: Path) -> Interrupted | None:
    """What an interrupted change left for ``image``.  Raises JournalError."""
    record = records.find(real(image))
    return None if record is None else _described(record)


def _described(record: Record) -> Interrupted:
    action: Action = "busy" if _at_work(record) else _ACTIONS[record.state]
    return Interrupted(
        images=tuple(disk.image for disk in record.disks),
        action=action,
        command=record.command,
        started=record.started,
    )


def recorded_images(folder: Path | None) -> list[Path]:
    """The images with a record in ``folder``; None: block devices, whose records we keep.

    A record that cannot be read counts as well, by the image that its own name tells.
    """
    where = records.state_folder() if folder is None else folder
    images = []
    for path in _records_in(where, "*" if folder is None else ".*.imgtools"):
        named = records.image_of(path)
        if named is not None:
            images.append(named)
    return images


def _records_in(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.absolute().glob(pattern)) if folder.is_dir() else []


def pending_overlay(image: Path) -> tuple[Path, str] | None:
    """The overlay through which a half-committed image must be read, and the image's format.

    None when nothing is pending.  Raises JournalError when the image cannot be read truly.
    """
    path = real(image)
    record = records.find(path)
    if record is None or record.state != "committing":
        return None
    disk = next(one for one in record.disks if one.image == os.fspath(path))
    _check(disk)
    if disk.file_level:
        raise JournalError(
            f"{image}: a change of its format ({record.command}) was interrupted",
            hint=f"finish it: imgtools recover {image}",
        )
    return Path(disk.overlay), disk.format


def recover(image: Path, resolve: Resolve) -> Interrupted | None:
    """Finish or discard what was interrupted on ``image``; None if there is nothing.

    Raises InUseError while another imgtools or a guest uses an image, JournalError for a record
    that cannot be used, CommitError when the commit stops again.
    """
    path = real(image)
    record = records.find(path)
    if record is None:
        _sweep(path)
        return None
    found = _described(record)
    if record.state == "committing":
        _finish(record, resolve)
    else:
        _discard(record)
    return found


def _sweep(image: Path) -> None:
    """Remove a record that was killed before it had its name: nothing had begun."""
    part = records.unfinished_path(image)
    if os.path.lexists(part):
        with contextlib.suppress(ImgtoolsError, OSError):
            hold = hold_for_change(image)  # else it is being written now
            part.unlink(missing_ok=True)
            hold.release()


def _discard(record: Record) -> None:
    with holding([(image, True) for image in record.images if image.exists()]):
        _require_same(record)
        for disk in record.disks:
            Path(disk.overlay).unlink(missing_ok=True)
        records.remove(record)


def _finish(record: Record, resolve: Resolve) -> None:
    for disk in record.disks:
        _check(disk)
    with holding([(image, True) for image in record.images]) as holds, signals_later():
        _require_same(record)
        for hold in holds:
            hold.take_exclusive()
        disks = [resolve(Path(disk.image), disk.format) for disk in record.disks]
        overlays = [Path(disk.overlay) for disk in record.disks]
        for one in disks:
            _mend(one)
        with inheriting([hold.fileno() for hold in holds]):
            write_all(disks, overlays, resizes_of(record))
        for hold in holds:
            hold.sync()
        for one in disks:
            _mend(one)
        records.finish(record)
        for overlay in overlays:
            overlay.unlink(missing_ok=True)
        records.remove(record)


def resizes_of(record: Record) -> list[Resize | None]:
    """The new sizes of the record's images."""
    return [
        None if disk.new_size is None else Resize(disk.new_size, disk.preallocation)
        for disk in record.disks
    ]


def _require_same(record: Record) -> None:
    """Raise InUseError if the record changed before we held the images: somebody was at work."""
    if records.find(record.images[0]) != record:
        raise InUseError(
            f"{record.images[0]}: another imgtools dealt with the interrupted change just now",
            hint="try again",
        )


def _mend(disk: Disk) -> None:
    """Clusters that a killed qemu had reserved and not used yet are given back: no data is lost."""
    layer = disk.layers[0]
    if layer.format not in ("qcow2", "qed"):
        return
    with tempfile.TemporaryDirectory(prefix="imgtools-") as folder:
        spec = "json:" + json.dumps(chain_node(disk, Path(folder), writable=True))
        look = ["qemu-img", "check", "-q"]
        if run([*look, spec], check=False, timeout=CHECK_TIMEOUT).returncode:
            done = run([*look, "-r", "leaks", spec], check=False, timeout=CHECK_TIMEOUT)
            if done.returncode not in (0, 3):
                raise ToolError(f"{layer.path}: qemu-img check: {done.last_error_line()}")


def _check(disk: RecordedDisk) -> None:
    """Raise JournalError if the record does not fit what lies here now."""
    where = records.record_path(Path(disk.image))
    image, overlay = Path(disk.image), Path(disk.overlay)
    if not overlay.is_file():
        raise JournalError(
            f"{image}: a commit was interrupted, and its overlay {overlay} has vanished: "
            "the image may be half changed",
            hint=f"bring the overlay back, or restore the image from a backup and remove {where}",
        )
    if not image.exists():
        raise JournalError(
            f"{image}: a commit was interrupted, and the image is gone",
            hint=f"bring it back to that place, or remove {where} and {overlay}",
        )
    if identity_of(image) != disk.identity:
        raise JournalError(
            f"{image}: a commit was interrupted, and the image was replaced since",
            hint=f"if this image is the right one as it is, remove {where} and {overlay}",
        )


def _at_work(record: Record) -> bool:
    try:
        for image in record.images:
            hold_for_change(image).release()
    except InUseError:
        return True
    except (ImgtoolsError, OSError):
        return False
    return False


def real(image: Path) -> Path:
    """The path under which a record knows the image."""
    return Path(os.path.realpath(image))
