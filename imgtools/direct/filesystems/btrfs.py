"""btrfs: subvolumes, directories, files with inline, plain and compressed extents.

Source: btrfs.readthedocs.io, "On-disk Format"; Linux fs/btrfs (inode.c for what stat shows).
"""

from __future__ import annotations

import os
import stat as _stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from imgtools.direct.filesystems.base import Entry, Memory, NodeTree, as_blocks
from imgtools.direct.filesystems.btrfs_data import FileData, Piece, inflate
from imgtools.direct.filesystems.btrfs_volume import WHAT, Item, Tree, Volume
from imgtools.direct.guard import guard
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError, GuestFileNotFoundError
from imgtools.model.files import FileKind, Stat, StatVFS

INODE_ITEM, INODE_REF, XATTR_ITEM, DIR_ITEM, DIR_INDEX, EXTENT_DATA = 1, 12, 24, 84, 96, 108
ROOT_ITEM, ROOT_BACKREF, ROOT_REF = 132, 144, 156
TOP_LEVEL, FIRST_FREE, LAST_FREE = 5, 256, (1 << 64) - 256
ROOT_DIRECTORY = 6
EMPTY_DIRECTORY = 2  # what the kernel shows in place of a subvolume that is not there
INLINE, REGULAR, PREALLOCATED = 0, 1, 2
KINDS: dict[int, FileKind] = {1: "r", 2: "d", 3: "c", 4: "b", 5: "f", 6: "s", 7: "l"}
MAX_SUBVOLUMES = 100_000
MAX_PIECES = 2_000_000
MAX_DEPTH = 256

Node = tuple[int, int]  # subvolume and inode number


@dataclass(frozen=True, slots=True, kw_only=True)
class BtrfsVolumes:
    """The subvolumes as ``btrfs subvolume list`` orders them: (id, path from the top)."""

    default_id: int
    default_path: bytes
    subvolumes: tuple[tuple[int, bytes], ...]


class Roots:
    """The tree of roots: every subvolume's tree and name."""

    def __init__(self, sources: list[BlockStream]) -> None:
        self.volume = Volume(sources)
        self.tree = lru_cache(256)(self._tree)

    def items(self, objectid: int, kind: int) -> Iterator[Item]:
        """Items of the tree of roots."""
        return self.volume.items(self.volume.super.root, objectid, kind)

    def _tree(self, number: int) -> Tree:
        found = None
        for _, data in self.items(number, ROOT_ITEM):
            if len(data) < 239:
                raise DamagedError(f"{WHAT}: a bad root item")
            found = data
        if found is None:
            raise DamagedError(f"{WHAT}: subvolume {number} has no root")
        generation, _, address = struct.unpack_from("<QQQ", found, 160)
        return Tree(address, found[238], generation)

    def default(self) -> int:
        """The subvolume that is mounted when none is named."""
        for _, data in self.items(ROOT_DIRECTORY, DIR_ITEM):
            for name, _, target, _ in dir_items(data):
                if name == b"default":
                    return target[0]
        return TOP_LEVEL

    def numbers(self) -> list[int]:
        """All subvolumes below the top level, by walking the references."""
        found, todo = set(), [TOP_LEVEL]
        while todo:
            for child, _ in self.items(todo.pop(), ROOT_REF):
                if child not in found and FIRST_FREE <= child <= LAST_FREE:
                    found.add(child)
                    todo.append(child)
            if len(found) > MAX_SUBVOLUMES:
                raise DirectUnsupportedError(f"{WHAT} has too many subvolumes")
        return sorted(found)

    def path(self, number: int) -> bytes:
        """The path of a subvolume from the top level, without a leading slash."""
        parts: list[bytes] = []
        for _ in range(MAX_DEPTH):
            if number == TOP_LEVEL:
                return b"/".join(reversed(parts))
            reference = next(self.items(number, ROOT_BACKREF), None)
            if reference is None:
                raise DamagedError(f"{WHAT}: subvolume {number} is not linked")
            parent, data = reference
            directory, _, length = struct.unpack_from("<QQH", data)
            parts.append(data[18 : 18 + length])
            parts += self._directory_names(parent, directory)
            number = parent
        raise DamagedError(f"{WHAT}: subvolumes nest without end")

    def _directory_names(self, tree: int, inode: int) -> Iterator[bytes]:
        for _ in range(MAX_DEPTH):
            if inode == FIRST_FREE:
                return
            reference = next(self.volume.items(self.tree(tree), inode, INODE_REF), None)
            if reference is None:
                raise DamagedError(f"{WHAT}: a directory is not linked")
            inode, data = reference
            length = struct.unpack_from("<QH", data)[1]
            yield data[10 : 10 + length]
        raise DamagedError(f"{WHAT}: directories nest without end")

    def has_child(self, parent: int, child: int, directory: int, name: bytes) -> bool:
        """Whether the subvolume ``child`` really hangs at ``name`` here, as the kernel checks."""
        for number, data in self.items(parent, ROOT_REF):
            if number == child:
                found, _, length = struct.unpack_from("<QQH", data)
                return found == directory and data[18 : 18 + length] == name
        return False


def list_subvolumes(streams: list[BinaryIO]) -> BtrfsVolumes:
    """The subvolumes of the btrfs on ``streams``.  Raises DirectError."""
    with guard(WHAT):
        roots = Roots([as_blocks(stream) for stream in streams])
        default = roots.default()
        return BtrfsVolumes(
            default_id=default,
            default_path=roots.path(default),
            subvolumes=tuple((number, roots.path(number)) for number in roots.numbers()),
        )


def open_tree(streams: list[BinaryIO], subvolume: bytes | None) -> BtrfsTree:
    """Open a subvolume by its path from the top, or the default one."""
    with guard(WHAT):
        roots = Roots([as_blocks(stream) for stream in streams])
        if subvolume is None:
            return BtrfsTree(roots, roots.default())
        for number in roots.numbers():
            if roots.path(number) == subvolume.strip(b"/"):
                return BtrfsTree(roots, number)
        raise GuestFileNotFoundError(f"{WHAT} has no subvolume {subvolume!r}")


class BtrfsTree(NodeTree[Node]):
    """One subvolume and what is nested in it.  Implements `model.FileTree`."""

    def __init__(self, roots: Roots, subvolume: int) -> None:
        self._roots = roots
        self._volume = roots.volume
        super().__init__(WHAT, (subvolume, FIRST_FREE))
        if not _stat.S_ISDIR(self._node_stat(self._root).mode):
            raise DamagedError(f"the root of {WHAT} is no directory")

    def _number(self, node: Node) -> int:
        return node[1]

    def _items(self, node: Node, kind: int) -> Iterator[Item]:
        return self._volume.items(self._roots.tree(node[0]), node[1], kind)

    def _node_stat(self, node: Node) -> Stat:
        if node[1] == EMPTY_DIRECTORY:
            return Stat(
                ino=EMPTY_DIRECTORY, mode=_stat.S_IFDIR | 0o755, nlink=1, uid=0, gid=0, size=0
            )
        item = next(self._items(node, INODE_ITEM), None)
        if item is None or len(item[1]) < 160:
            raise DamagedError(f"{WHAT}: inode {node[1]} is not there")
        raw = item[1]
        size, used = struct.unpack_from("<QQ", raw, 16)
        nlink, uid, gid, mode, device = struct.unpack_from("<IIIIQ", raw, 40)
        sector = self._volume.super.sector
        if size >= 1 << 62 or used >= 1 << 62:
            raise DamagedError(f"{WHAT}: a file of {size} bytes")
        return Stat(
            ino=node[1],
            mode=mode,
            nlink=nlink,
            uid=uid,
            gid=gid,
            size=size,
            # The kernel's own dev_t is stored: 20 bits of minor number.
            rdev=os.makedev(device >> 20 & 0xFFF, device & 0xFFFFF),
            blksize=sector,
            blocks=-(-used // sector) * sector // 512,
            atime_ns=_time(raw, 112),
            ctime_ns=_time(raw, 124),
            mtime_ns=_time(raw, 136),
        )

    def _node_entries(self, node: Node) -> Iterator[Entry[Node]]:
        if node[1] == EMPTY_DIRECTORY:
            return
        for _, data in self._items(node, DIR_INDEX):
            for name, kind, target, _ in dir_items(data):
                yield name, KINDS.get(kind, "u"), self._target(node, name, target)

    def _target(self, node: Node, name: bytes, target: tuple[int, int]) -> Node:
        number, kind = target
        if kind == INODE_ITEM:
            return node[0], number
        if kind != ROOT_ITEM:
            raise DamagedError(f"{WHAT}: a bad directory entry")
        if self._roots.has_child(node[0], number, node[1], name):
            return number, FIRST_FREE
        return node[0], EMPTY_DIRECTORY

    def _node_readlink(self, node: Node) -> bytes:
        content = self._node_content(node, self._node_stat(node))
        if not 0 < content.size <= 4095:
            raise DamagedError(f"{WHAT}: a symbolic link of {content.size} bytes")
        return content.read_at(0, content.size)

    def _node_content(self, node: Node, found: Stat) -> BlockStream:
        pieces: list[Piece] = []
        end = 0
        items = self._items(node, EXTENT_DATA)
        for offset, raw in items:
            if len(raw) < 21 or offset < end:
                raise DamagedError(f"{WHAT}: bad extents")
            ram, compression, encryption, other, kind = struct.unpack_from("<QBBHB", raw, 8)
            if encryption or other:
                raise DirectUnsupportedError(f"{WHAT} has encoded extents")
            if kind == INLINE:
                if offset or found.size > 1 << 20 or next(items, None) is not None:
                    raise DamagedError(f"{WHAT}: a bad inline extent")
                data = inflate(raw[21:], compression, ram, self._volume.super.sector)
                return Memory(data[: found.size].ljust(found.size, b"\0"))
            piece = _piece(offset, raw, ram, compression, kind)
            end = offset + piece.length
            if piece.logical:
                pieces.append(piece)
            if len(pieces) > MAX_PIECES:
                raise DirectUnsupportedError(f"{WHAT}: a file in too many pieces")
        return FileData(self._volume, found.size, pieces)

    def _node_xattrs(self, node: Node) -> dict[bytes, bytes]:
        if node[1] == EMPTY_DIRECTORY:
            return {}
        items = self._items(node, XATTR_ITEM)
        return {name: value for _, data in items for name, _, _, value in dir_items(data)}

    def _space(self) -> StatVFS:
        # btrfs_statfs depends on free space that only a mount works out.
        raise DirectUnsupportedError(f"the space of {WHAT} is the kernel's to count")


def dir_items(data: bytes) -> Iterator[tuple[bytes, int, tuple[int, int], bytes]]:
    """The entries packed in one item: name, type, target (objectid, key type), value."""
    position = 0
    while position < len(data):
        if position + 30 > len(data):
            raise DamagedError(f"{WHAT}: a directory item ends early")
        objectid, kind = struct.unpack_from("<QB", data, position)
        value_length, name_length, entry = struct.unpack_from("<HHB", data, position + 25)
        start = position + 30
        position = start + name_length + value_length
        if position > len(data):
            raise DamagedError(f"{WHAT}: a directory item ends early")
        name = data[start : start + name_length]
        yield name, entry, (objectid, kind), data[start + name_length : position]


def _piece(offset: int, raw: bytes, ram: int, compression: int, kind: int) -> Piece:
    if kind not in (REGULAR, PREALLOCATED) or len(raw) < 53:
        raise DamagedError(f"{WHAT}: an extent of an unknown kind")
    logical, stored, start, length = struct.unpack_from("<4Q", raw, 21)
    if not length or start + length > ram or length >= 1 << 62:
        raise DamagedError(f"{WHAT}: a bad extent")
    return Piece(
        offset=offset,
        length=length,
        logical=0 if kind == PREALLOCATED else logical,
        stored=stored,
        start=start,
        ram=ram,
        compression=compression,
    )


def _time(raw: bytes, at: int) -> int:
    seconds, nanoseconds = struct.unpack_from("<qI", raw, at)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
