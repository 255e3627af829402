"""XFS: what its log says, and which blocks mounting does not count as free."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.direct.filesystems.base import Memory
from imgtools.direct.filesystems.xfs import open_tree
from imgtools.direct.filesystems.xfs_log import require_clean
from imgtools.direct.filesystems.xfs_super import Super, read_superblock
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, UncleanError
from tests.direct.filesystems.flipping import Flipped, open_stream

pytestmark = pytest.mark.direct

Image = Callable[[str], Path]
UUID = bytes(range(16))
BLOCKS = 4096
UNMOUNT, COMMIT = 0x20, 0x02


def _geometry() -> Super:
    """A filesystem of nothing but a log behind its first block."""
    return Super(
        block_size=512,
        blocks=BLOCKS + 1,
        uuid=UUID,
        meta_uuid=UUID,
        log_start=1,
        log_blocks=BLOCKS,
        root=0,
        ag_blocks=BLOCKS + 1,
        ag_count=1,
        version=5,
        inode_size=512,
        inodes_per_block_log=0,
        ag_blocks_log=13,
        inode_percent=0,
        inodes=0,
        free_inodes=0,
        free_blocks=0,
        directory_block=512,
        ftype=True,
        has_rmap=False,
        reserves=False,
        sector=512,
    )


def _record(cycle: int, size: int, *, flags: int, blocks: int = 1, operations: int = 1) -> bytes:
    """A log record: its headers, then ``blocks`` blocks whose first words are the cycle."""
    header = bytearray(512)
    struct.pack_into(">IIII", header, 0, 0xFEEDBABE, cycle, 2, blocks * 512)
    struct.pack_into(">I", header, 40, operations)
    header[304:320] = UUID
    struct.pack_into(">I", header, 320, size)
    extended = struct.pack(">I", cycle).ljust(512, b"\0") * (max(1, -(-size // 32768)) - 1)
    operation = struct.pack(">IIBBH", cycle, 8, 0xAA, flags, 0).ljust(512, b"\0")
    filler = struct.pack(">I", cycle).ljust(512, b"\0") * (blocks - 1)
    return bytes(header) + extended + operation + filler


def _check(log: bytes) -> None:
    assert len(log) == BLOCKS * 512
    require_clean(Memory(bytes(512) + log), _geometry())


def _filler(cycle: int, blocks: int) -> bytes:
    return struct.pack(">I", cycle).ljust(512, b"\0") * blocks


def _unwrapped(record: bytes) -> bytes:
    return record + bytes(BLOCKS * 512 - len(record))


def _wrapped(record: bytes, start: int, *, cycle: int = 7) -> bytes:
    """``record`` from block ``start`` on, after blocks of its cycle, before the cycle earlier."""
    after = BLOCKS - start - len(record) // 512
    return _filler(cycle, start) + record + _filler(cycle - 1, after)


@pytest.mark.parametrize("size", [512, 32768, 65536, 262144])
def test_unmounted_logs_are_clean(size: int) -> None:
    _check(_unwrapped(_record(1, size, flags=UNMOUNT)))
    _check(_wrapped(_record(7, size, flags=UNMOUNT), 1000))
    _check(_wrapped(_record(7, size, flags=UNMOUNT, blocks=20), 3000))


def test_an_unmount_record_at_the_very_end_is_clean() -> None:
    _check(_filler(7, BLOCKS - 2) + _record(7, 32768, flags=UNMOUNT))


def test_an_unmount_record_around_the_end_is_clean() -> None:
    record = _record(7, 32768, flags=UNMOUNT)
    header, operation = record[:512], struct.pack(">I", 8) + record[516:]
    _check(operation + _filler(7, BLOCKS - 2) + header)


@pytest.mark.parametrize(
    "log",
    [
        bytes(BLOCKS * 512),
        _unwrapped(_record(1, 32768, flags=COMMIT)),
        _unwrapped(_record(1, 32768, flags=UNMOUNT, operations=2)),
        _unwrapped(_record(1, 32768, flags=UNMOUNT) + _record(1, 32768, flags=COMMIT)),
        _unwrapped(_record(1, 32768, flags=UNMOUNT) + _filler(1, 1)),
        _wrapped(_record(7, 32768, flags=COMMIT), 1000),
        _filler(7, 900)
        + _filler(6, 1)
        + _wrapped(_record(7, 512, flags=UNMOUNT), 99)[: -901 * 512],
        _filler(7, 1000) + _filler(3, BLOCKS - 1000),
    ],
    ids=["zeros", "commit", "two", "later", "headless", "wrapped", "hole", "cycles"],
)
def test_other_logs_are_not(log: bytes) -> None:
    with pytest.raises(UncleanError):
        _check(log)


def test_the_log_of_another_filesystem_is_not_believed() -> None:
    record = bytearray(_record(1, 32768, flags=UNMOUNT))
    record[304] ^= 1
    with pytest.raises(UncleanError):
        _check(_unwrapped(bytes(record)))


def _patched(stream: BlockStream, at: int, value: bytes) -> BlockStream:
    return Flipped(stream, dict(enumerate(value, at)))


def test_blocks_of_free_space_trees_are_not_free(image: Image) -> None:
    stream = open_stream(image("xfs"))
    sb = read_superblock(stream)
    before = open_tree([stream]).statvfs()
    last = (sb.ag_count - 1) * sb.ag_blocks * sb.block_size + sb.sector
    found = struct.unpack(">I", stream.read_at(last + 60, 4))[0]
    after = open_tree([_patched(stream, last + 60, struct.pack(">I", found + 9))]).statvfs()
    assert sb.reserves
    assert after.bfree == before.bfree - 9


def test_without_reserving_features_they_are(image: Image) -> None:
    stream = open_stream(image("xfs-v4"))
    sb = read_superblock(stream)
    patched = _patched(stream, sb.sector + 60, struct.pack(">I", 9))
    assert not sb.reserves
    assert open_tree([patched]).statvfs() == open_tree([stream]).statvfs()


def test_need_of_repair_is_damage(image: Image) -> None:
    stream = open_stream(image("xfs"))
    incompat = struct.unpack(">I", stream.read_at(216, 4))[0]
    with pytest.raises(DamagedError, match="xfs_repair"):
        open_tree([_patched(stream, 216, struct.pack(">I", incompat | 0x10))])
