"""Write bytes into a part of a disk through qemu-img, and ask which parts hold data.

qemu's raw driver shows a window of what is below it (``offset`` and ``size``), and ``convert -n``
copies into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from imgtools.errors import SpaceError, ToolError
from imgtools.image.inplace import space_error
from imgtools.image.job import Report, run_job, silent
from imgtools.nodes import Node, spec
from imgtools.process import run

TIMEOUT = 3600.0
_MAX_MAP = 64 << 20  # bytes; an entry has about 100


def write_bytes(disk: Node, offset: int, data: bytes) -> None:
    """Put ``data`` at ``offset`` of the disk that the writable node shows; whole sectors of 512.

    Raises ToolError, MissingToolError.
    """
    fd = os.memfd_create("imgtools", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, len(data))
        os.pwrite(fd, data, 0)
        write_file(disk, offset, fd)
    finally:
        os.close(fd)


def write_file(disk: Node, offset: int, fd: int, report: Report = silent) -> None:
    """As `write_bytes`, with what is in the file ``fd``.

    The node is an overlay of a change.  Raises SpaceError as well.
    """
    size = os.fstat(fd).st_size
    file: Node = {"driver": "file", "filename": f"/dev/fd/{fd}", "locking": "off"}
    source: Node = {"driver": "raw", "read-only": True, "file": {**file, "read-only": True}}
    window: Node = {"driver": "raw", "offset": offset, "size": size, "file": disk}
    words = ["qemu-img", "convert", "-p", "-n", "-O", "raw", spec(source), spec(window)]
    try:
        run_job(words, report, pass_fds=(fd,))
    except ToolError as error:
        if space_error(error):
            raise SpaceError(
                "the storage is full before the change is committed; the image is as it was",
                hint="free some space, or name a folder on another disk with --workdir",
            ) from error
        raise


def read_bytes(disk: Node, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset`` of the disk that the node shows; whole sectors of 512.

    Raises ToolError, MissingToolError.
    """
    fd = os.memfd_create("imgtools", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, length)
        source: Node = {"driver": "raw", "offset": offset, "size": length, "file": disk}
        file: Node = {"driver": "file", "filename": f"/dev/fd/{fd}", "locking": "off"}
        target: Node = {"driver": "raw", "file": file}
        words = ["qemu-img", "convert", "-n", "-O", "raw", spec(source), spec(target)]
        run_job(words, pass_fds=(fd,))
        return os.pread(fd, length, 0)
    finally:
        os.close(fd)


class DataRange(NamedTuple):
    """Bytes of a disk that are not known to be zeros."""

    start: int
    length: int


def data_from(disk: Node, start: int) -> Iterator[DataRange]:
    """The ranges with data behind ``start``.  Raises ToolError."""
    words = ["qemu-img", "map", "--output=json", f"--start-offset={start}", spec(disk)]
    said = run(words, timeout=TIMEOUT, max_output=_MAX_MAP).stdout
    try:
        ranges = json.loads(said)
    except ValueError as error:
        raise ToolError("qemu-img map: the disk is too fragmented to be looked at") from error
    for one in ranges:
        if one["data"] and not one["zero"]:
            yield DataRange(one["start"], one["length"])
