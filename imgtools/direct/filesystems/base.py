"""What the trees of all filesystems share: path lookup, bounded caches, the guard, file streams.

A filesystem gives nodes by a reference of its own (an inode number, say); everything about paths
is done here once.  Directories are cached whole, up to `MAX_CACHED` names in all, so that lookups
in one directory do not read it again; a directory of more than `MAX_ENTRIES` names is left to the
appliance.
"""

from __future__ import annotations

import io
import stat as _stat
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any, BinaryIO, Generic, TypeVar

from imgtools.direct.guard import GuardedStream, guard
from imgtools.direct.streams import Adapter, BlockStream
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestNotAFileError,
)
from imgtools.model.files import DirEntry, FileKind, Stat, StatVFS

MAX_ENTRIES = 400_000
MAX_CACHED = 400_000
CACHED_PATHS = 4096
BUFFER = 1 << 16

Node = TypeVar("Node", bound=Hashable)
Entry = tuple[bytes, FileKind, Node]


def show(path: bytes) -> str:
    """``path`` for a message."""
    return path.decode("utf-8", errors="backslashreplace")


def as_blocks(stream: Any) -> BlockStream:
    """The stream with ``read_at``; one that has none is wrapped."""
    return stream if isinstance(stream, BlockStream) else Adapter(stream, stream.size)


def read_exactly(source: BlockStream, offset: int, length: int, what: str) -> bytes:
    """``length`` bytes at ``offset``, or DamagedError when the device ends before."""
    data = source.read_at(offset, length) if offset >= 0 else b""
    if len(data) != length:
        raise DamagedError(f"{what}: points beyond the end of its device")
    return data


class Extents(BlockStream):
    """A file made of (offset in the file, length, offset on the device), all in bytes.

    They are sorted and do not overlap; what none covers reads as zeros.
    """

    def __init__(self, source: BlockStream, size: int, extents: list[tuple[int, int, int]]) -> None:
        super().__init__(size)
        self._source = source
        self._extents = extents
        self._starts = [extent[0] for extent in extents]

    def _read_at(self, offset: int, length: int) -> bytes:
        end = offset + length
        pieces: list[bytes] = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while offset < end:
            if index >= len(self._extents):
                pieces.append(bytes(end - offset))
                break
            start, count, physical = self._extents[index]
            if offset < start:
                hole = min(end, start) - offset
                pieces.append(bytes(hole))
                offset += hole
                continue
            take = min(end, start + count) - offset
            if take > 0:
                at = physical + offset - start
                pieces.append(read_exactly(self._source, at, take, "a file's extent"))
                offset += take
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Memory(BlockStream):
    """A file whose content is at hand."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class NodeTree(Generic[Node]):
    """A `model.FileTree` over nodes.  Subclasses give what the methods ``_node_…`` promise.

    ``what`` names the filesystem in messages.
    """

    def __init__(self, what: str, root: Node) -> None:
        self._what = what
        self._root = root
        self._directories: OrderedDict[Node, dict[bytes, tuple[FileKind, Node]]] = OrderedDict()
        self._cached = 0
        self._resolve = lru_cache(CACHED_PATHS)(self._walk)
        self._stat_of = lru_cache(CACHED_PATHS)(self._node_stat)

    # -- what a filesystem gives --------------------------------------------------------------

    def _node_entries(self, node: Node) -> Iterable[Entry[Node]]:
        raise NotImplementedError

    def _node_stat(self, node: Node) -> Stat:
        raise NotImplementedError

    def _node_readlink(self, node: Node) -> bytes:
        raise NotImplementedError

    def _node_content(self, node: Node, found: Stat) -> BlockStream:
        raise NotImplementedError

    def _node_xattrs(self, node: Node) -> dict[bytes, bytes]:  # noqa: ARG002
        return {}

    def _space(self) -> StatVFS:
        raise NotImplementedError

    def _number(self, node: Node) -> int:
        return node if isinstance(node, int) else 0

    def _key(self, name: bytes) -> bytes:
        """What a name is looked up by; differs where case does not matter."""
        return name

    # -- paths --------------------------------------------------------------------------------

    def _walk(self, path: bytes) -> Node:
        parent, _, name = path.rpartition(b"/")
        if not name:
            return self._root
        directory = self._resolve(parent)
        found = self._directory(directory, parent).get(self._key(name))
        if found is None:
            raise GuestFileNotFoundError(f"{show(path)}: no such file or directory in the guest")
        return found[1]

    def _directory(self, node: Node, path: bytes) -> dict[bytes, tuple[FileKind, Node]]:
        cached = self._directories.get(node)
        if cached is not None:
            self._directories.move_to_end(node)
            return cached
        entries: dict[bytes, tuple[FileKind, Node]] = {}
        for name, kind, inner in self._read_directory(node, path):
            entries.setdefault(self._key(name), (kind, inner))
        self._directories[node] = entries
        self._cached += len(entries)
        while self._cached > MAX_CACHED and len(self._directories) > 1:
            self._cached -= len(self._directories.popitem(last=False)[1])
        return entries

    def _read_directory(self, node: Node, path: bytes) -> list[Entry[Node]]:
        if not _stat.S_ISDIR(self._stat_of(node).mode):
            raise GuestNotADirectoryError(f"{show(path)}: is not a directory in the guest")
        entries: list[Entry[Node]] = []
        for entry in self._node_entries(node):
            name = entry[0]
            if name in (b".", b".."):
                continue
            if not name or b"/" in name or b"\0" in name:
                raise DamagedError(f"{self._what}: a name in {show(path) or '/'} is invalid")
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                raise DirectUnsupportedError(f"{self._what}: {show(path)} has too many entries")
        return entries

    # -- model.FileTree -----------------------------------------------------------------------

    def lstat(self, path: bytes) -> Stat:
        """Metadata of ``path`` itself."""
        with guard(self._what):
            return self._stat_of(self._resolve(path))

    def readlink(self, path: bytes) -> bytes:
        """The target of the symbolic link ``path``, as stored."""
        with guard(self._what):
            node = self._resolve(path)
            if not _stat.S_ISLNK(self._stat_of(node).mode):
                raise GuestNotAFileError(f"{show(path)}: is not a symbolic link in the guest")
            return self._node_readlink(node)

    def scandir(self, path: bytes) -> list[DirEntry]:
        """The entries of a directory in no particular order, without ``.`` and ``..``."""
        with guard(self._what):
            entries = self._read_directory(self._resolve(path), path)
            return [
                DirEntry(name=name, kind=kind, ino=self._number(node))
                for name, kind, node in entries
            ]

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        """lstat of several names of one directory at once; None where there is none."""
        with guard(self._what):
            entries = self._directory(self._resolve(directory), directory)
            found = [entries.get(self._key(name)) for name in names]
            return [None if entry is None else self._stat_of(entry[1]) for entry in found]

    def open(self, path: bytes) -> BinaryIO:
        """A seekable read-only stream over a regular file."""
        with guard(self._what):
            node = self._resolve(path)
            found = self._stat_of(node)
            if _stat.S_ISDIR(found.mode):
                raise GuestIsADirectoryError(f"{show(path)}: is a directory in the guest")
            if not _stat.S_ISREG(found.mode):
                raise GuestNotAFileError(f"{show(path)}: is not a regular file in the guest")
            content = self._node_content(node, found)
        what = f"{self._what}: {show(path)}"
        return io.BufferedReader(GuardedStream(content, content.size, what), BUFFER)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of ``path`` itself, by full name."""
        with guard(self._what):
            return self._node_xattrs(self._resolve(path))

    def statvfs(self) -> StatVFS:
        """Space and inodes of the whole filesystem, as the kernel counts them."""
        with guard(self._what):
            return self._space()
