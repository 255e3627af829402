"""The last lines of files of a guest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

from imgtools.errors import ImgtoolsError
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.workflow.files import for_each, guest_tree
from imgtools.workflow.resumable import ResumableWriter
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

BLOCK = 1 << 16
CHUNK = 1 << 20


def tail(
    arguments: DiskArguments,
    paths: Sequence[bytes],
    sink: BinaryIO,
    *,
    lines: int = 10,
    mounts: Sequence[MountRequest] = (),
) -> Outcome[list[ImgtoolsError]]:
    """Write the last ``lines`` lines of each file to ``sink``.

    Several files each begin with ``==> name <==``, as tail(1) writes it.  A file that cannot
    be read stops no other: the result is the failures.
    """
    selection = select_one(arguments)
    writer = ResumableWriter(sink)
    with_headers = len(paths) > 1 and lines > 0

    def task(session: Session) -> list[ImgtoolsError]:
        writer.restart()
        tree = guest_tree(session, mounts)
        blank = b""

        def show(path: bytes) -> None:
            nonlocal blank
            with tree.open(path) as stream:
                if with_headers:
                    writer.write(blank + b"==> " + path + b" <==\n")
                    blank = b"\n"
                _copy_end(stream, lines, writer)

        return for_each(paths, show)

    outcome = run_selected(task, selection, arguments)
    writer.finish()
    return outcome


def _copy_end(stream: BinaryIO, lines: int, writer: ResumableWriter) -> None:
    stream.seek(start_of_lines(stream, lines))
    while chunk := stream.read(CHUNK):
        writer.write(chunk)


def start_of_lines(stream: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines begin; the last one need not end in a newline.

    Reads backwards and holds one block, however long the lines are.
    """
    position = end = stream.seek(0, io.SEEK_END)
    if not lines:
        return end
    wanted = lines
    while position:
        start = max(0, position - BLOCK)
        stream.seek(start)
        block = stream.read(position - start)
        at = len(block)
        if position == end and block.endswith(b"\n"):
            at -= 1  # the newline that ends the last line begins no other
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
            if not wanted:
                return start + at + 1
        position = start
    return 0
