"""A disk as a stream of bytes, also where the direct engine lacks its format: then by qemu-img."""

from __future__ import annotations

import tempfile
from pathlib import Path

from imgtools.appliance.overlay import chain_node
from imgtools.direct.disk import open_disk
from imgtools.direct.streams import BlockStream, Cached
from imgtools.errors import DirectUnsupportedError
from imgtools.image.window import read_bytes
from imgtools.model.disks import Disk

_SECTOR = 512


def open_any(disk: Disk) -> BlockStream:
    """The bytes that the guest sees on a local disk, which must be held.

    Raises ImageError and its kin; reads raise these, ToolError and MissingToolError.
    """
    try:
        return open_disk(disk)
    except DirectUnsupportedError:
        return Cached(_QemuStream(disk), disk.name)


class _QemuStream(BlockStream):
    """Every read is one run of qemu-img."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(-(-disk.layers[0].virtual_size // _SECTOR) * _SECTOR)
        self._disk = disk

    def _read_at(self, offset: int, length: int) -> bytes:
        begin = offset - offset % _SECTOR
        end = -(-(offset + length) // _SECTOR) * _SECTOR
        with tempfile.TemporaryDirectory(prefix="imgtools-") as folder:
            data = read_bytes(chain_node(self._disk, Path(folder)), begin, end - begin)
        return data[offset - begin : offset - begin + length]
