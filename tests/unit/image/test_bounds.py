"""Tables made to keep a reader busy: the work stays bounded, whatever the counts say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.image import source as source_module
from imgtools.image.vet import vet

pytestmark = pytest.mark.unit

CLUSTER = 1 << 16
BUDGET = 64 << 20


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every read (counting is no fault; the reads are real)."""
    counted: list[int] = []
    peek = source_module.Source.peek

    def counting(self: source_module.Source, offset: int, length: int) -> bytes:
        data = peek(self, offset, length)
        counted.append(len(data))
        return data

    monkeypatch.setattr(source_module.Source, "peek", counting)
    return counted


def test_refcount_blocks_without_a_count(qcow2: Callable[..., Path], bytes_read: list[int]) -> None:
    """A refcount table of a million entries that all name the same zeros, of 2 MiB each."""
    path = qcow2(
        cluster_bits=21,
        reftable_offset=2 << 20,
        reftable_clusters=4,
        l1_offset=10 << 20,
        file_size=14 << 20,
    )
    with path.open("r+b") as stream:
        stream.seek(2 << 20)
        stream.write(struct.pack(">Q", 12 << 20) * (1 << 20))
    vet(path)
    assert sum(bytes_read) < BUDGET


def test_l2_tables_named_again_and_again(qcow2: Callable[..., Path], bytes_read: list[int]) -> None:
    """An L1 table of four million entries that all name one L2 table."""
    entries = 1 << 22
    path = qcow2(size=entries << 29, l1_entries=entries, l1_offset=4 * CLUSTER, file_size=40 << 20)
    with path.open("r+b") as stream:
        stream.seek(4 * CLUSTER)
        stream.write(struct.pack(">Q", 1 << 63 | 3 * CLUSTER) * entries)
        stream.seek(CLUSTER)
        stream.write(struct.pack(">Q", 2 * CLUSTER) * (CLUSTER // 8))
        stream.seek(2 * CLUSTER)
        stream.write(b"\0\1" * (CLUSTER // 2))
    vet(path)
    assert sum(bytes_read) < BUDGET


def test_a_snapshot_table_of_gigabytes(qcow2: Callable[..., Path], bytes_read: list[int]) -> None:
    path = qcow2(snapshots=65536, snapshots_offset=4 * CLUSTER)
    with path.open("r+b") as stream:
        stream.truncate(16 << 30)
        entry = struct.pack(">QIHHIIQII", 0, 0, 65535, 65535, 0, 0, 0, 0, 0)
        for number in range(400):
            stream.seek(4 * CLUSTER + number * 131112)
            stream.write(entry)
    header = vet(path)
    assert sum(bytes_read) < BUDGET
    assert 0 < len(header.snapshots) < 200
