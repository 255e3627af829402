"""What every filesystem here shares: paths looked up name by name, with a bounded cache."""

from __future__ import annotations

import stat as _stat
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from typing import BinaryIO, Generic, TypeVar

from imgtools.direct.guard import GuardedStream, guard
from imgtools.errors import (
    DamagedError,
    GuestFileNotFoundError,
    GuestNotADirectoryError,
    GuestOperationError,
)
from imgtools.model import DirEntry, Stat, StatVFS

N = TypeVar("N")

MAX_ENTRIES = 4_000_000
_CACHED_ENTRIES = 200_000
_CACHED_DIRECTORIES = 512


class Tree(ABC, Generic[N]):
    """`model.FileTree` over nodes (inodes) of type ``N``; subclasses read, this class looks up.

    A node is whatever the subclass needs to read a file; ``_identity`` is its inode number.
    """

    kind = "filesystem"

    def __init__(self) -> None:
        self._directories: OrderedDict[int, dict[bytes, tuple[DirEntry, N]]] = OrderedDict()
        self._cached = 0

    # -- what a filesystem provides -------------------------------------------------------------

    @abstractmethod
    def _root(self) -> N:
        """The root directory."""

    @abstractmethod
    def _identity(self, node: N) -> int:
        """The inode number."""

    @abstractmethod
    def _entries(self, node: N) -> Iterable[tuple[DirEntry, N]]:
        """A directory's entries without ``.`` and ``..``; damage raises, it never shortens."""

    @abstractmethod
    def _stat(self, node: N) -> Stat:
        """Metadata of a node."""

    @abstractmethod
    def _link(self, node: N) -> bytes:
        """A symbolic link's target."""

    @abstractmethod
    def _content(self, node: N) -> BinaryIO:
        """A seekable stream over a regular file, without checks of its own."""

    def _attributes(self, node: N) -> dict[bytes, bytes]:  # noqa: ARG002 (most have none)
        """Extended attributes by full name."""
        return {}

    @abstractmethod
    def statvfs(self) -> StatVFS:
        """Space and inodes, exactly as the kernel would answer."""

    # -- model.FileTree ---------------------------------------------------------------------------

    def lstat(self, path: bytes) -> Stat:
        with guard(self._what(path)):
            return self._stat(self._find(path))

    def readlink(self, path: bytes) -> bytes:
        with guard(self._what(path)):
            node = self._find(path)
            if not _stat.S_ISLNK(self._stat(node).mode):
                raise GuestOperationError(f"{_show(path)}: is not a symbolic link")
            return self._link(node)

    def scandir(self, path: bytes) -> list[DirEntry]:
        with guard(self._what(path)):
            return [entry for entry, _ in self._directory(self._find(path), path).values()]

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        with guard(self._what(directory)):
            found = self._directory(self._find(directory), directory)
            return [self._stat(found[name][1]) if name in found else None for name in names]

    def open(self, path: bytes) -> BinaryIO:
        with guard(self._what(path)):
            node = self._find(path)
            return GuardedStream(self._content(node), self._stat(node).size, self._what(path))

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        with guard(self._what(path)):
            return self._attributes(self._find(path))

    # -- lookup -----------------------------------------------------------------------------------

    def _what(self, path: bytes) -> str:
        return f"{self.kind}: {_show(path)}"

    def _find(self, path: bytes) -> N:
        node, here = self._root(), b""
        for part in path.split(b"/"):
            if not part:
                continue
            found = self._directory(node, here or b"/").get(part)
            here += b"/" + part
            if found is None:
                raise GuestFileNotFoundError(f"{_show(here)}: no such file or directory")
            node = found[1]
        return node

    def _directory(self, node: N, path: bytes) -> dict[bytes, tuple[DirEntry, N]]:
        identity = self._identity(node)
        known = self._directories.get(identity)
        if known is not None:
            self._directories.move_to_end(identity)
            return known
        if not _stat.S_ISDIR(self._stat(node).mode):
            raise GuestNotADirectoryError(f"{_show(path)}: is not a directory")
        known = self._read_directory(node, path)
        self._directories[identity] = known
        self._cached += len(known)
        while len(self._directories) > 1 and (
            self._cached > _CACHED_ENTRIES or len(self._directories) > _CACHED_DIRECTORIES
        ):
            self._cached -= len(self._directories.popitem(last=False)[1])
        return known

    def _read_directory(self, node: N, path: bytes) -> dict[bytes, tuple[DirEntry, N]]:
        found: dict[bytes, tuple[DirEntry, N]] = {}
        for entry, child in self._entries(node):
            if entry.name in found or not entry.name or b"/" in entry.name or b"\0" in entry.name:
                raise DamagedError(f"{self._what(path)}: bad or double name {_show(entry.name)!r}")
            found[entry.name] = (entry, child)
            if len(found) > MAX_ENTRIES:
                raise DamagedError(f"{self._what(path)}: more than {MAX_ENTRIES} names")
        return found


def _show(path: bytes) -> str:
    return path[:500].decode("utf-8", errors="surrogateescape")
