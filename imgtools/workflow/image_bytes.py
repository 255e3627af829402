"""Read and write ranges of bytes of a guest's disk, whatever format holds it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from imgtools.errors import SpaceError, UsageError
from imgtools.image.job import Report, silent
from imgtools.image.window import write_file
from imgtools.model.disks import Disk, DiskRequest
from imgtools.transaction.transaction import Transaction
from imgtools.workflow.held import refuse_running
from imgtools.workflow.images import private_folder, to_read
from imgtools.workflow.opening import finish_interrupted, resolve_disks

SECTOR = 512
_PIECE = 1 << 20


@contextlib.contextmanager
def reading(
    request: DiskRequest, offset: int, length: int, *, untrusted: bool = False
) -> Iterator[tuple[Disk, Iterator[bytes]]]:
    """The disk, which is held, and the bytes of the range in pieces.

    Raises UsageError for a range beyond its end, InUseError while a guest writes to it, ImageError
    and its kin.
    """
    from imgtools.workflow.disk_stream import open_any

    with (
        to_read([request], untrusted=untrusted) as (disk,),
        contextlib.closing(open_any(disk)) as stream,
    ):
        _require_inside(request.name, stream.size, offset, length)
        begins = range(offset, offset + length, _PIECE)
        yield disk, (stream.read_at(at, min(_PIECE, offset + length - at)) for at in begins)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """Where to write: ``offset`` in bytes of the guest's disk."""

    request: DiskRequest
    offset: int
    dry_run: bool = False
    untrusted: bool = False
    workdir: Path | None = None
    break_overlays: bool = False


def write_range(asked: Writing, source: BinaryIO, report: Report = silent) -> int:
    """Write all that ``source`` has to the disk, in one transaction.  Returns the bytes.

    Raises UsageError for what does not fit, RefusedError and its kin, ImageError and its kin,
    CommitError.
    """
    path = asked.request.path
    if path is None:
        raise UsageError(f"{asked.request.name}: is not a file of this host", hint="copy it here")
    refuse_running([path])
    finish_interrupted(path, untrusted=asked.untrusted)
    (disk,) = resolve_disks([asked.request], untrusted=asked.untrusted)
    disk = replace(disk, in_use=False)
    with Transaction(
        [disk],
        command="image write",
        workdir=asked.workdir,
        break_overlays=asked.break_overlays,
    ) as transaction:
        with tempfile.TemporaryFile(prefix="imgtools-") as spool:
            length = _spool(asked, disk, source, spool)
            if asked.dry_run or not length:
                return length
            _put(disk, transaction.overlays[0], asked.offset, spool.fileno(), report)
        transaction.commit()
    return length


def _spool(asked: Writing, disk: Disk, source: BinaryIO, spool: BinaryIO) -> int:
    """Copy the source into whole sectors; what the disk has around it stays.  Its own length."""
    from imgtools.workflow.disk_stream import open_any

    size, begin = disk.layers[0].virtual_size, asked.offset
    _require_inside(asked.request.name, size, begin, 0)
    with contextlib.ExitStack() as stack:

        def around(start: int, end: int) -> bytes:
            stream = stack.enter_context(contextlib.closing(open_any(disk)))
            return stream.read_at(start, end - start)

        length = 0
        try:
            if before := begin % SECTOR:
                spool.write(around(begin - before, begin))
            while piece := source.read(_PIECE):
                length += len(piece)
                _require_inside(asked.request.name, size, begin, length)
                spool.write(piece)
            end = begin + length
            if length and end % SECTOR:
                spool.write(around(end, end + SECTOR - end % SECTOR))
            spool.flush()
        except OSError as error:
            raise SpaceError(
                f"{asked.request.name}: what is to be written cannot be kept in "
                f"{tempfile.gettempdir()}: {error.strerror}; nothing was written",
                hint="set TMPDIR to a folder with more space",
            ) from error
    return length


def _require_inside(name: str, size: int, offset: int, length: int) -> None:
    if offset + length > size:
        raise UsageError(
            f"{name}: has {size} bytes, and the range reaches beyond its end",
            hint="a shorter range; imgtools image resize makes the disk larger",
        )


def _put(disk: Disk, overlay: Path, offset: int, fd: int, report: Report) -> None:
    from imgtools.appliance.overlay import chain_node, make_overlay, overlay_node

    with private_folder() as folder:
        make_overlay(disk, 0, folder, overlay)
        node = {**overlay_node(overlay, folder), "backing": chain_node(disk, folder)}
        write_file(node, offset - offset % SECTOR, fd, report)


def save(pieces: Iterator[bytes], target: BinaryIO) -> int:
    """Write the pieces to a file or pipe; how many bytes they were."""
    count = 0
    for piece in pieces:
        target.write(piece)
        count += len(piece)
    target.flush()
    return count


def source_size(source: BinaryIO) -> int:
    """Bytes of a regular file, 0 for what does not tell."""
    status = os.fstat(source.fileno())
    return status.st_size
