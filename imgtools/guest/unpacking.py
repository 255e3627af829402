"""Bring a tree of files into the guest through a tar stream.

tar, in the appliance, would follow links of the guest out of the folder it unpacks into.  So it
unpacks into a new folder of ours on the same filesystem, where nothing lies yet, and what is there
then is moved to its place name by name, by paths resolved in the guest.
"""

from __future__ import annotations

import os
import secrets
import stat as _stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.errors import (
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestOperationError,
    ImgtoolsError,
)
from imgtools.guest.owners import parse_owner
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles
from imgtools.model.files import Stat

CHUNK = 1 << 20
_PATIENCE = 5.0  # seconds

Archive = Callable[[tuple[int | None, int | None]], AbstractContextManager[BinaryIO]]
"""Opens the tar stream; it is told the owner that all files are to have, None for their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpack:
    """Unpack an archive in the directory ``path``.

    Files that are there are replaced; directories keep their owner and mode, and what else is in
    them.  ``told`` is called with the bytes of the archive as they pass.
    """

    path: bytes
    archive: Archive
    owner: str | None = None
    told: Callable[[int], None] = lambda _count: None

    def idle(self, tree: GuestTree) -> bool:
        """Never certain; but that the folder is none is known before a launch."""
        if not tree.is_dir(self.path):
            _require_directory(self.path, tree.stat(self.path))
        return False

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Unpack beside, then merge."""
        target = guest.resolve(self.path)
        _require_directory(target, guest.lstat(target))
        owner = (None, None) if self.owner is None else parse_owner(guest, self.owner)
        stage = target.rstrip(b"/") + b"/.imgtools-" + secrets.token_hex(8).encode()
        guest.mkdir(stage, 0o700)
        with self.archive(owner) as stream:
            _pump(guest, stage, stream, self.told)
        done = list(merge(guest, stage, target))
        guest.remove(stage, recursive=True)
        return done


def _require_directory(path: bytes, found: Stat) -> None:
    if not _stat.S_ISDIR(found.mode):
        raise GuestNotADirectoryError(f"{show(path)}: is not a directory in the guest")


def _pump(guest: GuestFiles, stage: bytes, stream: BinaryIO, told: Callable[[int], None]) -> None:
    """Hand the stream to libguestfs, which reads a pipe of ours."""
    reading, writing = os.pipe()
    source = _Source(stream, writing, told)
    thread = threading.Thread(target=source.copy, name="imgtools-archive", daemon=True)
    thread.start()
    refused: GuestOperationError | None = None
    try:
        guest.unpack(stage, reading)
    except GuestOperationError as error:
        refused = error
    finally:
        os.close(reading)
        # Whoever gives us the archive may be silent for ever.
        thread.join(None if refused is None else _PATIENCE)
    if source.failure is not None:
        raise source.failure
    if refused is not None:
        raise refused
    if source.count == 0:
        raise ImgtoolsError("the archive is empty: not even its end is there")


class _Source:
    """Copies a stream into a pipe; a failure is kept for the thread that waits."""

    def __init__(self, stream: BinaryIO, pipe: int, told: Callable[[int], None]) -> None:
        self._stream = stream
        self._pipe = pipe
        self._told = told
        self.count = 0
        self.failure: ImgtoolsError | None = None

    def copy(self) -> None:
        try:
            with open(self._pipe, "wb", buffering=0) as sink:  # noqa: PTH123 (a descriptor)
                while piece := self._stream.read(CHUNK):
                    view = memoryview(piece)
                    while view:
                        view = view[sink.write(view) :]
                    self.count += len(piece)
                    self._told(len(piece))
        except BrokenPipeError:
            pass  # whoever stopped reading says why
        except ImgtoolsError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (a decompressor's own errors have no base)
            self.failure = ImgtoolsError(f"the archive cannot be read: {error}")


def merge(guest: GuestFiles, stage: bytes, target: bytes) -> Iterator[Done]:
    """Move everything in ``stage`` to the same names in ``target``."""
    for entry, found in guest.scandir_stat(stage):
        source = stage + b"/" + entry.name
        place = target.rstrip(b"/") + b"/" + entry.name
        there = guest.try_lstat(place)
        linked = there is not None and _stat.S_ISLNK(there.mode)
        if linked and _stat.S_ISDIR(found.mode) and guest.is_dir(place):
            # /lib -> usr/lib: what goes into /lib belongs where that leads.
            place = guest.resolve(place)
            there = guest.lstat(place)
        if there is not None and _stat.S_ISDIR(there.mode):
            if not _stat.S_ISDIR(found.mode):
                raise GuestIsADirectoryError(
                    f"{show(place)}: is a directory in the guest, but none in what is copied"
                )
            yield from merge(guest, source, place)
            continue
        if there is not None and _stat.S_ISDIR(found.mode):
            raise GuestNotADirectoryError(
                f"{show(place)}: is no directory in the guest, but is one in what is copied"
            )
        guest.rename(source, place)
        yield Done(verb="copied", path=place)
