"""The block node of a vetted disk for qemu-img: its snapshot and its keys included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imgtools.errors import SnapshotNotFoundError, UsageError
from imgtools.image.header import ImageHeader, Snapshot
from imgtools.image.secret import SOURCE
from imgtools.image.vet import vet
from imgtools.model import Disk, ImageLayer
from imgtools.nodes import Node, chain_node


def source_node(disk: Disk, folder: Path, *, key: bool = False) -> Node:
    """The node of ``disk``; with ``key`` its encrypted layers are opened by the secret `SOURCE`.

    An internal snapshot is no part of it: qemu-img takes that by ``-l``.  ``folder`` as for
    `imgtools.nodes.chain_node`.  Raises UsageError for a key that opens nothing, or that is
    missing, and what `chain_node` raises.
    """
    layers = [replace(layer, snapshot_table=None) for layer in disk.layers]
    node = chain_node(layers, folder)
    is_luks = _is_luks(disk)
    if not key:
        if is_luks and disk.request.format == "luks":
            raise UsageError(
                f"{disk.name}: -f luks needs a key",
                hint="--source-key-file FILE; -f raw copies it as it is, encrypted",
            )
        return node
    used = is_luks
    if is_luks:
        node.update({"driver": "luks", "key-secret": SOURCE})
    used |= _unlock(node, layers)
    if not used:
        raise UsageError(f"{disk.name}: is not encrypted", hint="leave --source-key-file out")
    return node


def _is_luks(disk: Disk) -> bool:
    """True for a LUKS container, which the layers call raw."""
    path, stated = disk.request.path, disk.request.format
    if path is None or disk.pending or stated not in (None, "luks"):
        return False
    return vet(path, stated).format == "luks"


def _unlock(node: Node, layers: Sequence[ImageLayer]) -> bool:
    used = False
    below: Node | None = node
    for layer in layers:
        assert below is not None
        if layer.format in ("qcow2", "qcow"):
            encryption = vet(layer.path, layer.format).encryption
            if encryption is not None:
                below["encrypt"] = {"format": encryption, "key-secret": SOURCE}
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
