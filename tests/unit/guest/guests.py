"""Guests in memory: an engine over `MemoryTree`, and shorthands to lay out files.

A real implementation of `model.Engine` whose disks are dicts, for what inspection makes of
files; what the engines make of disks is tested on images.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from imgtools.errors import GuestOperationError
from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.inspection import Inspection
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model.engine import EngineName
from imgtools.model.files import FileTree
from imgtools.model.storage import BlockDevice, Filesystem, Partition, Storage
from tests.unit.memory_tree import MemoryTree

Files = Mapping[str, bytes | str | None]
"""Path -> bytes of a file, target of a link, or None for an empty directory (path ends in /)."""


def nested(files: Files) -> dict[bytes, object]:
    """The nested dicts of `MemoryTree` from a flat listing."""
    top: dict[bytes, object] = {}
    for path, content in files.items():
        parts = [p.encode("utf-8", "surrogateescape") for p in path.split("/") if p]
        node = top
        for part in parts if path.endswith("/") else parts[:-1]:
            child = node.setdefault(part, {})
            assert isinstance(child, dict)
            node = child
        if not path.endswith("/"):
            node[parts[-1]] = content
    return top


def guest_tree(files: Files) -> GuestTree:
    """A guest of one filesystem."""
    return GuestTree([Mount(b"/", "/dev/sda1", MemoryTree(nested(files)))])


class MemoryEngine:
    """An engine whose filesystems are given as dicts; a mountable without one does not mount."""

    name: EngineName = "appliance"

    def __init__(self, trees: Mapping[str, Files], storage: Storage) -> None:
        self.trees = {device: MemoryTree(nested(files)) for device, files in trees.items()}
        self._storage = storage

    def storage(self) -> Storage:
        return self._storage

    def mount(self, device: str) -> FileTree:
        if device not in self.trees:
            raise GuestOperationError(f"{device}: wrong fs type, bad superblock")
        return self.trees[device]

    def close(self) -> None:
        pass


def elf(machine: int = 62, *, bits: int = 64, little: bool = True) -> bytes:
    """The start of an ELF program."""
    ident = bytes((0x7F, 0x45, 0x4C, 0x46, 2 if bits == 64 else 1, 1 if little else 2, 1))
    return ident.ljust(16, b"\0") + struct.pack("<HH" if little else ">HH", 3, machine)


DEBIAN: dict[str, bytes | str | None] = {
    "bin": "usr/bin",
    "usr/bin/bash": elf(),
    "etc/fstab": b"UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n",
    "etc/hostname": b"lemon\n",
    "etc/debian_version": b"12.11\n",
    "etc/os-release": "../usr/lib/os-release",
    "usr/lib/os-release": b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
    b'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
    "var/lib/dpkg/status": b"Package: bash\nStatus: install ok installed\n"
    b"Architecture: amd64\nVersion: 5.2.15-2+b8\nDescription: GNU Bourne Again SHell\n"
    b" Bash is an sh-compatible command language interpreter.\n\n",
}


def filesystem(device: str, kind: str = "ext4", **more: object) -> Filesystem:
    """A filesystem of the first disk."""
    return Filesystem(**{"device": device, "type": kind, "size": 1 << 30, "disks": (0,), **more})


def session_of(
    trees: Mapping[str, Files], storage: Storage | None = None
) -> tuple[Session, MemoryEngine]:
    """A session over in-memory filesystems; by default each is a partition of one disk."""
    if storage is None:
        storage = Storage(
            devices=(BlockDevice(name="/dev/sda", size=8 << 30, disk=0),),
            partitions=tuple(
                Partition(name=d, size=1 << 30, parent="/dev/sda", number=n, table="gpt")
                for n, d in enumerate(trees, 1)
                if d.startswith("/dev/sda")
            ),
            filesystems=tuple(filesystem(device) for device in trees),
        )
    engine = MemoryEngine(trees, storage)
    return Session(engine=engine, disks=(), name="memory"), engine


def inspect_files(files: Files, **options: bool) -> Inspection:
    """Inspect a guest of one partition; there must be exactly one."""
    session, _ = session_of({"/dev/sda1": files})
    (found,) = inspect_guests(session, **options)
    return found
