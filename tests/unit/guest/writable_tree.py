"""A `model.WritableTree` in memory, with owners, modes and attributes: guests that steps change."""

from __future__ import annotations

import io
import stat as _stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from imgtools.errors import GuestFileNotFoundError, GuestNotADirectoryError, GuestOperationError
from imgtools.guest.writing import GuestFiles, Planned
from imgtools.model.files import DirEntry, Stat, StatVFS, kind_of_mode
from tests.unit.guest.guests import Files


@dataclass
class Node:
    """An inode."""

    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    names: dict[bytes, Node] = field(default_factory=dict)
    attributes: dict[bytes, bytes] = field(default_factory=dict)


class WritableMemoryTree:
    """Files are made with mode 0644, as in an appliance with its umask."""

    def __init__(self, files: Files) -> None:
        self.top = Node(_stat.S_IFDIR | 0o755)
        self.writes = 0
        for path, content in files.items():
            folder = self.top
            *above, name = [part for part in path.encode().split(b"/") if part]
            for part in above:
                folder = folder.names.setdefault(part, Node(_stat.S_IFDIR | 0o755))
            if content is None:
                folder.names.setdefault(name, Node(_stat.S_IFDIR | 0o755))
            elif isinstance(content, str):
                folder.names[name] = Node(_stat.S_IFLNK | 0o777, content.encode())
            else:
                folder.names[name] = Node(_stat.S_IFREG | 0o644, content)

    def node(self, path: bytes | str) -> Node:
        node = self.top
        for part in (path.encode() if isinstance(path, str) else path).split(b"/"):
            if not part:
                continue
            if not _stat.S_ISDIR(node.mode):
                raise GuestNotADirectoryError(repr(path))
            if part not in node.names:
                raise GuestFileNotFoundError(repr(path))
            node = node.names[part]
        return node

    def _place(self, path: bytes) -> tuple[Node, bytes]:
        folder, _, name = path.rstrip(b"/").rpartition(b"/")
        self.writes += 1
        return self.node(folder), name

    def lstat(self, path: bytes) -> Stat:
        node = self.node(path)
        size = len(node.data)
        return Stat(
            ino=id(node), mode=node.mode, nlink=node.nlink, uid=node.uid, gid=node.gid, size=size
        )

    def readlink(self, path: bytes) -> bytes:
        return self.node(path).data

    def scandir(self, path: bytes) -> list[DirEntry]:
        return [
            DirEntry(name=name, kind=kind_of_mode(node.mode))
            for name, node in self.node(path).names.items()
        ]

    def lstat_many(self, directory: bytes, names: list[bytes]) -> list[Stat | None]:
        return [self.lstat(directory + b"/" + name) for name in names]

    def open(self, path: bytes) -> BinaryIO:
        return io.BytesIO(self.node(path).data)

    def getxattrs(self, path: bytes) -> dict[bytes, bytes]:
        return dict(self.node(path).attributes)

    def statvfs(self) -> StatVFS:
        raise NotImplementedError

    def create(self, path: bytes, pieces: Iterable[bytes]) -> int:
        folder, name = self._place(path)
        node = folder.names.setdefault(name, Node(_stat.S_IFREG | 0o644))
        node.data = b"".join(pieces)
        return len(node.data)

    def write_at(self, path: bytes, offset: int, pieces: Iterable[bytes]) -> int:
        raise NotImplementedError

    def truncate(self, path: bytes, size: int) -> None:
        raise NotImplementedError

    def mkdir(self, path: bytes, mode: int) -> None:
        folder, name = self._place(path)
        folder.names[name] = Node(_stat.S_IFDIR | mode)

    def rmdir(self, path: bytes) -> None:
        folder, name = self._place(path)
        if folder.names[name].names:
            raise GuestOperationError(f"{path!r}: not empty")
        del folder.names[name]

    def unlink(self, path: bytes) -> None:
        folder, name = self._place(path)
        del folder.names[name]

    def remove_all(self, path: bytes) -> None:
        self.unlink(path)

    def symlink(self, path: bytes, target: bytes) -> None:
        folder, name = self._place(path)
        folder.names[name] = Node(_stat.S_IFLNK | 0o777, target)

    def link(self, path: bytes, existing: bytes) -> None:
        folder, name = self._place(path)
        folder.names[name] = self.node(existing)
        folder.names[name].nlink += 1

    def rename(self, old: bytes, new: bytes) -> None:
        raise NotImplementedError

    def copy_tree(self, old: bytes, other: Any, new: bytes) -> None:
        raise NotImplementedError

    def chmod(self, path: bytes, mode: int) -> None:
        self.writes += 1
        node = self.node(path)
        node.mode = _stat.S_IFMT(node.mode) | mode

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.writes += 1
        node = self.node(path)
        node.uid, node.gid = uid, gid

    def set_times(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        raise NotImplementedError

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        self.writes += 1
        self.node(path).attributes[name] = value

    def unpack(self, path: bytes, archive: int) -> None:
        raise NotImplementedError


class MemoryGuest(GuestFiles):
    """A guest of one filesystem; ``memory`` is what is in it."""

    def __init__(self, files: Mapping[str, bytes | str | None]) -> None:
        self.memory = WritableMemoryTree(files)
        plan = [Planned(mountpoint=b"/", device="/dev/sda1")]
        super().__init__(plan, lambda _device, _point: self.memory)

    def text(self, path: str) -> bytes:
        """The content of a file, links followed."""
        return self.read(path.encode(), limit=1 << 20)
