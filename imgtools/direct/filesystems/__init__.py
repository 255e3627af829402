"""Filesystems, each as a `model.FileTree` that answers as the kernel would or refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from imgtools.direct.filesystems.base import as_blocks
from imgtools.direct.guard import guard
from imgtools.direct.streams import BlockStream
from imgtools.errors import DirectUnsupportedError
from imgtools.model.files import FileTree

if TYPE_CHECKING:
    from imgtools.direct.filesystems.btrfs import BtrfsVolumes


def _ext(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.ext import ExtTree

    return ExtTree(source)


def _xfs(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.xfs import XfsTree

    return XfsTree(source)


def _fat(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.fat import FatTree

    return FatTree(source)


def _exfat(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.exfat import ExfatTree

    return ExfatTree(source)


def _squashfs(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.squashfs import SquashfsTree

    return SquashfsTree(source)


def _ntfs(source: BlockStream) -> FileTree:
    from imgtools.direct.filesystems.ntfs import NtfsTree

    return NtfsTree(source)


_SINGLE: dict[str, Callable[[BlockStream], FileTree]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "xfs": _xfs,
    "vfat": _fat,
    "exfat": _exfat,
    "squashfs": _squashfs,
    "ntfs": _ntfs,
}


def open_filesystem(
    fs_type: str, streams: list[BinaryIO], *, subvolume: bytes | None = None
) -> FileTree:
    """Open the filesystem of libblkid's type ``fs_type`` on its devices.

    The streams are seekable and have a ``size``; several make sense for btrfs only, as does
    ``subvolume``, a path from the top of the filesystem.  Raises DirectUnsupportedError,
    UncleanError when a journal needs replay, DamagedError.
    """
    if fs_type == "btrfs":
        from imgtools.direct.filesystems import btrfs

        return btrfs.open_tree(streams, subvolume)
    with guard(f"the {fs_type} filesystem"):
        if fs_type not in _SINGLE:
            raise DirectUnsupportedError(f"the direct engine cannot read {fs_type}")
        return _SINGLE[fs_type](as_blocks(streams[0]))


def btrfs_subvolumes(streams: list[BinaryIO]) -> BtrfsVolumes:
    """The subvolumes of the btrfs on ``streams``.  Raises as `open_filesystem`."""
    from imgtools.direct.filesystems import btrfs

    return btrfs.list_subvolumes(streams)
