"""A file tree in memory: the protocol's smallest honest implementation, for tests of path logic."""

from __future__ import annotations

import io
import stat
from typing import BinaryIO

from imgtools.errors import GuestFileNotFoundError, GuestNotADirectoryError
from imgtools.model.files import DirEntry, Stat, StatVFS, kind_of_mode

Content = bytes | str | dict[bytes, object] | None


class MemoryTree:
    """Built from nested dicts: bytes are files, str are link targets, dicts are directories.

    None is a FIFO.  Links are never followed, as the protocol demands.
    """

    def __init__(self, root: dict[bytes, object]) -> None:
        self.root = root

    def _find(self, path: bytes) -> object:
        node: object = self.root
        for part in path.split(b"/"):
            if not part:
                continue
            if not isinstance(node, dict):
                raise GuestNotADirectoryError(repr(path))
            if part not in node:
                raise GuestFileNotFoundError(repr(path))
            node = node[part]
        return node

    def lstat(self, path: bytes) -> Stat:
        node = self._find(path)
        if isinstance(node, dict):
            mode, size = stat.S_IFDIR | 0o755, 4096
        elif isinstance(node, bytes):
            mode, size = stat.S_IFREG | 0o644, len(node)
        elif isinstance(node, str):
            mode, size = stat.S_IFLNK | 0o777, len(node.encode("utf-8", "surrogateescape"))
        else:
            mode, size = stat.S_IFIFO | 0o600, 0
        return Stat(ino=id(node), mode=mode, nlink=1, uid=0, gid=0, size=size)

    def readlink(self, path: bytes) -> bytes:
        node = self._find(path)
        assert isinstance(node, str)
        return node.encode("utf-8", "surrogateescape")

    def scandir(self, path: bytes) -> list[DirEntry]:
        node = self._find(path)
        if not isinstance(node, dict):
            raise GuestNotADirectoryError(repr(path))
        return [
            DirEntry(name=name, kind=kind_of_mode(self.lstat(path + b"/" + name).mode))
            for name in node
        ]

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        return [self.lstat(directory + b"/" + name) for name in names]

    def open(self, path: bytes) -> BinaryIO:
        node = self._find(path)
        assert isinstance(node, bytes)
        return io.BytesIO(node)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        return {}

    def statvfs(self) -> StatVFS:
        return StatVFS(
            bsize=4096, frsize=4096, blocks=1, bfree=0, bavail=0, files=1, ffree=0, favail=0
        )
