"""Internal snapshots of qcow2: made, taken back to, deleted by qemu-img.

``qemu-img snapshot`` finds a snapshot to apply by its id first, then by name, and one to delete
by its name only, the first of that name (block/snapshot.c, qemu-img.c).
"""

from __future__ import annotations

import struct
from itertools import zip_longest

from imgtools.image.header import Snapshot
from imgtools.image.source import Source, open_source
from imgtools.model.disks import ImageLayer
from imgtools.nodes import Node, spec
from imgtools.process import run

_TIMEOUT = 24 * 3600.0
_COPIED = 1 << 63
MAX_TABLE = 32 << 20
"""Bytes of an L1 table (QCOW_MAX_L1_SIZE)."""


def create(node: Node, name: str) -> None:
    """Save the present state.  Raises ToolError."""
    _snapshot(node, "-c", name)


def apply(node: Node, snapshot: Snapshot) -> None:
    """Make the state of ``snapshot`` the present one, which is lost.  Raises ToolError."""
    _snapshot(node, "-a", snapshot.id)


def delete(node: Node, snapshot: Snapshot) -> None:
    """Delete the first snapshot of this one's name.  Raises ToolError."""
    _snapshot(node, "-d", snapshot.name)


def shows(layer: ImageLayer, snapshot: Snapshot) -> bool:
    """Is the present state that of ``snapshot``, to the last cluster?

    The map of clusters is the same then: a write after the snapshot was made changes it.
    """
    if snapshot.virtual_size not in (None, layer.virtual_size):
        return False
    with open_source(layer.path) as source:
        entries, offset = struct.unpack(">IQ", source.peek(36, 12))  # l1_size, l1_table_offset
        present = _table(source, offset, entries)
        saved = _table(source, snapshot.l1_offset, snapshot.l1_entries)
    if present is None or saved is None:
        return False
    return all(
        one & ~_COPIED == two & ~_COPIED for one, two in zip_longest(*(present, saved), fillvalue=0)
    )


def _table(source: Source, offset: int, entries: int) -> tuple[int, ...] | None:
    size = entries * 8
    if size > MAX_TABLE:
        return None
    raw = source.peek(offset, size)
    return struct.unpack(f">{entries}Q", raw) if len(raw) == size else None


def _snapshot(node: Node, option: str, name: str) -> None:
    run(["qemu-img", "snapshot", "-q", option, name, spec(node)], timeout=_TIMEOUT)
