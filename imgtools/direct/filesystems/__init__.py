"""Filesystems of the direct engine: one module each, imported when a magic number calls for it.

Charter: every class implements `model.FileTree` exactly, or refuses.  A parser's silence is not
believed: where a library skips what it cannot read, the walk is done here and checked, because a
wrong or partial answer is worse than none (*auto* then takes the appliance).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import BinaryIO

from imgtools.errors import DirectUnsupportedError
from imgtools.model import FileTree

# libblkid's type -> the module that reads it; each has ``open_tree(streams, subvolume)``.
MODULES = {
    "ext2": "ext",
    "ext3": "ext",
    "ext4": "ext",
    "xfs": "xfs",
    "btrfs": "btrfs",
    "ntfs": "ntfs",
    "vfat": "vfat",
    "exfat": "exfat",
    "squashfs": "squashfs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BtrfsVolumes:
    """The subvolumes of a btrfs, as ``btrfs subvolume list`` orders them: (id, path) pairs."""

    default_id: int
    default_path: bytes
    subvolumes: tuple[tuple[int, bytes], ...]


def open_filesystem(
    fs_type: str, streams: list[BinaryIO], *, subvolume: bytes | None = None
) -> FileTree:
    """Open the filesystem ``fs_type`` (libblkid's name) that lies on ``streams``.

    Streams are seekable and have ``size``; several only for a multi-device btrfs.  Raises
    DirectUnsupportedError, UncleanError (a journal needs replay) or DamagedError.
    """
    module = MODULES.get(fs_type)
    if module is None:
        raise DirectUnsupportedError(f"the direct engine cannot read {fs_type}")
    parser = importlib.import_module(f"imgtools.direct.filesystems.{module}")
    tree: FileTree = parser.open_tree(streams, subvolume)
    return tree


def btrfs_subvolumes(streams: list[BinaryIO]) -> BtrfsVolumes:
    """The subvolumes of the btrfs on ``streams``.  Raises as `open_filesystem`."""
    from imgtools.direct.filesystems.btrfs import list_subvolumes

    return list_subvolumes(streams)
