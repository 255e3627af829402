"""Flip bytes of what a filesystem's parser really reads, in memory, and read everything again."""

from __future__ import annotations

import random
from pathlib import Path

from imgtools.direct.disk import open_disk
from imgtools.direct.filesystems import open_filesystem
from imgtools.direct.streams import BlockStream
from imgtools.errors import ImgtoolsError
from imgtools.image.chain import resolve_disk
from imgtools.model.disks import DiskRequest
from imgtools.model.files import FileTree

NODES = 120
NAMES = 12  # of one directory
PIECE = 512


class Flipped(BlockStream):
    """A stream with single bytes replaced; remembers the small reads made through it."""

    def __init__(self, source: BlockStream, flips: dict[int, int] | None = None) -> None:
        super().__init__(source.size)
        self._source = source
        self._flips = flips or {}
        self.reads: set[int] = set()

    def _read_at(self, offset: int, length: int) -> bytes:
        data = self._source.read_at(offset, length)
        if length <= 1 << 16:
            self.reads.update(range(offset // PIECE, (offset + length - 1) // PIECE + 1))
        changed = {at: value for at, value in self._flips.items() if offset <= at < offset + length}
        if changed:
            mutable = bytearray(data)
            for at, value in changed.items():
                mutable[at - offset] = value
            data = bytes(mutable)
        return data


def open_stream(path: Path) -> BlockStream:
    """The bytes of a fixture's disk."""
    return open_disk(resolve_disk(DiskRequest(path=path), untrusted=False))


def read_all(kind: str, stream: BlockStream) -> int:
    """Read some of everything a filesystem gives; count the nodes that could be read."""
    try:
        tree = open_filesystem(kind, [stream])
    except ImgtoolsError:
        return 0
    _try(tree.statvfs)
    return _walk(tree)


def _walk(tree: FileTree) -> int:
    todo, seen = [b"/"], 0
    while todo and seen < NODES:
        directory = todo.pop(0)
        try:
            names = sorted(entry.name for entry in tree.scandir(directory))[:NAMES]
        except ImgtoolsError:
            continue
        for name in names:
            path = directory.rstrip(b"/") + b"/" + name
            seen += _node(tree, path)
            if len(path) < 200:
                todo.append(path)
    return seen


def _node(tree: FileTree, path: bytes) -> int:
    try:
        found = tree.lstat(path)
    except ImgtoolsError:
        return 0
    _try(lambda: tree.getxattrs(path))
    if found.kind == "l":
        _try(lambda: tree.readlink(path))
    elif found.kind == "r":
        _try(lambda: _read(tree, path, found.size))
    return 1


def _read(tree: FileTree, path: bytes, size: int) -> None:
    with tree.open(path) as stream:
        stream.read(1 << 16)
        stream.seek(max(0, size - 5000))
        stream.read(5000)


def _try(task: object) -> None:
    try:
        task()  # type: ignore[operator]
    except ImgtoolsError:
        return


def touched(kind: str, stream: BlockStream) -> list[int]:
    """The pieces of the image that reading it whole looks at (file content hardly)."""
    watched = Flipped(stream)
    assert read_all(kind, watched) > 20, kind
    return sorted(watched.reads)


def flips(stream: BlockStream, pieces: list[int], source: random.Random) -> dict[int, int]:
    """A few bytes to change, most of them where there is something."""
    found: dict[int, int] = {}
    for _ in range(source.choice([1, 1, 1, 2, 4, 16])):
        piece = source.choice(pieces)
        data = stream.read_at(piece * PIECE, PIECE)
        used = [at for at, value in enumerate(data) if value] or [0]
        at = source.choice(used) if source.random() < 0.7 else source.randrange(PIECE)
        value = source.choice([0, 0xFF, 0x7F, 0x80, data[at] ^ 1 << source.randrange(8)])
        found[piece * PIECE + at] = value
    return found
