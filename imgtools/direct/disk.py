"""Open a vetted disk: its container format and backing chain, as one stream of guest bytes."""

from __future__ import annotations

from collections.abc import Callable

from imgtools.direct.guard import guard
from imgtools.direct.streams import CACHE_BLOCKS, BlockStream, Cached, FileStream
from imgtools.errors import DirectUnsupportedError
from imgtools.model.disks import Disk, ImageLayer

Opener = Callable[[ImageLayer, BlockStream | None], BlockStream]


def open_disk(disk: Disk, *, cache_blocks: int = CACHE_BLOCKS) -> Cached:
    """Return the bytes that the guest sees on ``disk``, ``virtual_size`` of them.

    Only the files that ``disk.layers`` names are opened, never one that a header names.  Raises
    DirectUnsupportedError for a remote disk or a format that dissect lacks, UncleanError,
    DamagedError, ImageUnreadableError.
    """
    if not disk.layers:
        raise DirectUnsupportedError(f"{disk.name}: remote disks need the appliance")
    stream: BlockStream | None = None
    for layer in reversed(disk.layers):
        with guard(str(layer.path)):
            stream = _open_layer(layer, stream)
    assert stream is not None
    return Cached(stream, disk.name, cache_blocks)


def _open_layer(layer: ImageLayer, backing: BlockStream | None) -> BlockStream:
    opener = _OPENERS.get(layer.format)
    if opener is None or layer.node is not None:
        raise DirectUnsupportedError(f"{layer.path}: the direct engine cannot read {layer.format}")
    if backing is not None and layer.format != "qcow2":
        raise DirectUnsupportedError(f"{layer.path}: {layer.format} on top of another image")
    return opener(layer, backing)


def _open_raw(layer: ImageLayer, _backing: BlockStream | None) -> BlockStream:
    return FileStream(layer.path, layer.virtual_size)


def _open_qcow2(layer: ImageLayer, backing: BlockStream | None) -> BlockStream:
    from imgtools.direct.qcow2 import open_qcow2

    file = FileStream(layer.path)
    table = layer.snapshot_table
    return open_qcow2(file, str(layer.path), layer.virtual_size, backing, table=table)


def _container(name: str) -> Opener:
    def open_container(layer: ImageLayer, _backing: BlockStream | None) -> BlockStream:
        from imgtools.direct import containers

        opener: Callable[[ImageLayer], BlockStream] = getattr(containers, f"open_{name}")
        return opener(layer)

    return open_container


_OPENERS: dict[str, Opener] = {
    "raw": _open_raw,
    "qcow2": _open_qcow2,
    **{name: _container(name) for name in ("vmdk", "vdi", "vpc", "vhdx")},
}
