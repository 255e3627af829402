"""The content of files of a guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from imgtools.errors import ImgtoolsError
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree
from imgtools.workflow.files import for_each, guest_tree
from imgtools.workflow.resumable import ResumableWriter
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

CHUNK = 1 << 20


def cat(
    arguments: DiskArguments,
    paths: Sequence[bytes],
    sink: BinaryIO,
    *,
    mounts: Sequence[MountRequest] = (),
) -> Outcome[list[ImgtoolsError]]:
    """Write the files ``paths`` of the guest to ``sink``, one after the other, byte for byte.

    Links are followed inside the guest; only regular files are read.  A file that cannot be
    read stops no other: the result is the list of such failures.  Holds at most some 32 MiB.
    """
    selection = select_one(arguments)
    writer = ResumableWriter(sink)

    def task(session: Session) -> list[ImgtoolsError]:
        writer.restart()
        tree = guest_tree(session, mounts)
        return for_each(paths, lambda path: _copy(tree, path, writer))

    outcome = run_selected(task, selection, arguments)
    writer.finish()
    return outcome


def _copy(tree: GuestTree, path: bytes, writer: ResumableWriter) -> None:
    with tree.open(path) as stream:
        while chunk := stream.read(CHUNK):
            writer.write(chunk)
