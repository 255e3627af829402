"""Image headers built by hand, so that each field can lie on its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

QCOW2_CLUSTER = 1 << 16


def qcow2_bytes(
    *,
    version: int = 3,
    size: int = 1 << 20,
    cluster_bits: int = 16,
    crypt: int = 0,
    l1_entries: int = 1,
    l1_offset: int = 3 * QCOW2_CLUSTER,
    reftable_offset: int = QCOW2_CLUSTER,
    reftable_clusters: int = 1,
    snapshots: int = 0,
    snapshots_offset: int = 0,
    incompatible: int = 0,
    autoclear: int = 0,
    refcount_order: int = 4,
    header_length: int = 112,
    compression: int = 0,
    backing: bytes | None = None,
    backing_length: int | None = None,
    extensions: bytes = b"",
    file_size: int = 4 * QCOW2_CLUSTER,
) -> bytes:
    """A qcow2 file: header, header extensions, backing name; everything else zeros."""
    backing_offset = 0 if backing is None else 4096
    if backing_length is None:
        backing_length = len(backing or b"")
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing_offset,
        backing_length,
        cluster_bits,
        size,
        crypt,
        l1_entries,
        l1_offset,
        reftable_offset,
        reftable_clusters,
        snapshots,
        snapshots_offset,
    )
    if version >= 3:
        head += struct.pack(">QQQII", incompatible, 0, autoclear, refcount_order, header_length)
        head += bytes([compression]) + bytes(7)
    head += extensions
    if backing is not None:
        head = head.ljust(backing_offset, b"\0") + backing
    return head.ljust(file_size, b"\0")[:file_size]


def extension(kind: int, data: bytes, *, length: int | None = None) -> bytes:
    """A qcow2 header extension, padded; ``length`` may lie."""
    padded = data + bytes(-len(data) % 8)
    return struct.pack(">II", kind, len(data) if length is None else length) + padded


@pytest.fixture
def qcow2(tmp_path: Path) -> Callable[..., Path]:
    """Write a qcow2 file of hand-made fields and return its path."""

    def write(name: str = "image.qcow2", **fields: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(qcow2_bytes(**fields))
        return path

    return write


@pytest.fixture
def header_extension() -> Callable[..., bytes]:
    """The builder of qcow2 header extensions."""
    return extension
