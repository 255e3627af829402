"""The block node of a vetted disk for qemu-img: its snapshot and its keys included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imgtools.errors import ImageUnsupportedError, SnapshotNotFoundError, UsageError
from imgtools.image.header import ImageHeader, Snapshot
from imgtools.image.qemu import node_size
from imgtools.image.secret import Secrets
from imgtools.image.vet import vet
from imgtools.model.disks import Disk, ImageLayer
from imgtools.nodes import Node, chain_node


def header_of(disk: Disk) -> ImageHeader:
    """What the header of the active layer says; of what is no file, what is known."""
    layer = disk.layers[0]
    if layer.node is None:
        return vet(layer.path, layer.format)
    return ImageHeader(
        path=layer.path,
        format=layer.format,
        stated=True,
        file_size=0,
        virtual_size=layer.virtual_size,
        identity=(0, 0),
    )


def is_encrypted(disk: Disk) -> bool:
    """True when a key opens more of the disk: a LUKS container, or an encrypted layer."""
    return _is_luks(disk) or any(_encryption(layer) for layer in disk.layers)


def source_node(disk: Disk, folder: Path, *, key: str | None = None, index: int = 0) -> Node:
    """The node of ``disk``; its encrypted layers are opened by the secret of the id ``key``.

    An internal snapshot is no part of it: qemu-img takes that by ``-l``.  ``folder`` as for
    `imgtools.nodes.chain_node`, as is ``index``.  Raises UsageError for a key that opens nothing,
    or that is missing, ImageUnsupportedError for what this qemu-img cannot read, and what
    `chain_node` raises.
    """
    layers = [replace(layer, snapshot_table=None) for layer in disk.layers]
    node = chain_node(layers, folder, index)
    if layers[0].format == "dmg":
        from imgtools.image.dmg import refuse_unreadable

        refuse_unreadable(layers[0], node)
    is_luks = _is_luks(disk)
    if key is None:
        if is_luks and disk.request.format == "luks":
            raise UsageError(
                f"{disk.name}: -f luks needs a key",
                hint="--key-file or --source-key-file FILE; -f raw takes it as it is, encrypted",
            )
        return node
    used = is_luks
    if is_luks:
        _refuse_luks2(disk)
        node.update({"driver": "luks", "key-secret": key})
    used |= _unlock(node, layers, key)
    if not used:
        raise UsageError(f"{disk.name}: is not encrypted", hint="leave its key out")
    return node


def opened_size(disk: Disk, node: Node, keys: Secrets) -> int:
    """The size in bytes of the disk as ``node`` shows it: of a LUKS container, what is inside."""
    return node_size(node, keys) if node["driver"] == "luks" else disk.layers[0].virtual_size


def _is_luks(disk: Disk) -> bool:
    """True for a LUKS container, which the layers call raw."""
    path, stated = disk.request.path, disk.request.format
    if path is None or disk.pending or stated not in (None, "luks"):
        return False
    return vet(path, stated).format == "luks"


def _refuse_luks2(disk: Disk) -> None:
    path = disk.layers[0].path
    if vet(path, "luks").version != 1:
        raise ImageUnsupportedError(
            f"{disk.name}: qemu-img opens LUKS of version 1 only",
            hint=f"cryptsetup open {path} NAME, and use /dev/mapper/NAME with -f raw",
        )


def _encryption(layer: ImageLayer) -> str | None:
    if layer.node is not None or layer.format not in ("qcow2", "qcow"):
        return None
    return vet(layer.path, layer.format).encryption


def _unlock(node: Node, layers: Sequence[ImageLayer], key: str) -> bool:
    used = False
    below: Node | None = node
    for layer in layers:
        assert below is not None
        if (encryption := _encryption(layer)) is not None:
            below["encrypt"] = {"format": encryption, "key-secret": key}
            used = True
        below = below.get("backing")
    return used


def find_snapshot(header: ImageHeader, wanted: str) -> Snapshot:
    """The internal snapshot that ``-l`` means: an id or a name, or ``snapshot.id=…`` and
    ``snapshot.name=…`` joined by a comma (doubled within a name).

    Raises SnapshotNotFoundError.
    """
    known = header.snapshots
    if wanted.startswith("snapshot."):
        terms = [part.replace("\0", ",") for part in wanted.replace(",,", "\0").split(",")]
        pairs = dict(term.partition("=")[::2] for term in terms)
        if set(pairs) - {"snapshot.id", "snapshot.name"}:
            raise UsageError(f"-l {wanted}: only snapshot.id= and snapshot.name= are known")
        found = [
            one
            for one in known
            if pairs.get("snapshot.id", one.id) == one.id
            and pairs.get("snapshot.name", one.name) == one.name
        ]
    else:
        found = [one for one in known if one.id == wanted]
        found = found or [one for one in known if one.name == wanted]
    if not found:
        names = ", ".join(one.name or one.id for one in known)
        raise SnapshotNotFoundError(
            f"{header.path}: holds no internal snapshot {wanted}",
            hint=f"there are: {names}" if names else "it holds none at all",
        )
    return found[0]


def snapshot_words(snapshot: Snapshot | None) -> list[str]:
    """``-l …`` for qemu-img."""
    if snapshot is None:
        return []
    terms = {"snapshot.id": snapshot.id, "snapshot.name": snapshot.name}
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in terms.items() if value)
    return ["-l", text]
