"""Chains of clusters, sound and hostile; DOS times."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest

from imgtools.direct.filesystems.base import Memory
from imgtools.direct.filesystems.fat import unix_time
from imgtools.direct.filesystems.fat_table import Table, name_from_utf16
from imgtools.errors import DamagedError, DirectUnsupportedError

pytestmark = pytest.mark.unit


def table(*entries: int) -> Table:
    return Table(Memory(struct.pack(f"<{len(entries)}H", *entries)), 0, 16, len(entries))


def test_a_chain_to_its_end() -> None:
    assert list(table(0, 0, 4, 0xFFFF, 3).chain(2)) == [2, 4, 3]


def test_as_many_as_asked_for() -> None:
    assert list(table(0, 0, 4, 0xFFFF, 3).chain(2, 2)) == [2, 4]


def test_a_chain_that_is_too_short_for_its_file() -> None:
    with pytest.raises(DamagedError):
        list(table(0, 0, 3, 0xFFF8).chain(2, 3))


@pytest.mark.parametrize("entries", [(0, 0, 2), (0, 0, 3, 2), (0, 0, 3, 4, 3)])
def test_a_loop_ends(entries: tuple[int, ...]) -> None:
    with pytest.raises(DamagedError):
        list(table(*entries).chain(2))


@pytest.mark.parametrize("value", [0, 1, 5, 0xFFF7, 0xFFF0])
def test_a_chain_into_nowhere(value: int) -> None:
    with pytest.raises(DamagedError):
        list(table(0, 0, value, 0xFFFF, 0xFFFF).chain(2, 2))


def test_twelve_bits() -> None:
    # Two entries in three bytes: the low byte, the nibbles, the high byte.
    data = bytes.fromhex("f8ffff 03f0ff 000000")
    fat = Table(Memory(data), 0, 12, 6)
    assert list(fat.chain(2)) == [2, 3]
    assert fat.free() == 2


def test_free_clusters_leave_out_the_first_two() -> None:
    assert table(0, 0, 0, 0xFFFF, 0, 7).free() == 2


def test_the_table_must_be_there() -> None:
    with pytest.raises(DamagedError):
        Table(Memory(b"\0\0"), 0, 16, 100).free()


@pytest.mark.parametrize(
    ("date", "time", "when"),
    [
        (0x0021, 0, datetime(1980, 1, 1, tzinfo=UTC)),
        (
            20 << 9 | 2 << 5 | 29,
            12 << 11 | 34 << 5 | 28,
            datetime(2000, 2, 29, 12, 34, 56, tzinfo=UTC),
        ),
        (
            44 << 9 | 12 << 5 | 31,
            23 << 11 | 59 << 5 | 29,
            datetime(2024, 12, 31, 23, 59, 58, tzinfo=UTC),
        ),
        (121 << 9 | 3 << 5 | 1, 0, datetime(2101, 3, 1, tzinfo=UTC)),
    ],
)
def test_dos_times(date: int, time: int, when: datetime) -> None:
    assert unix_time(date, time) == int(when.timestamp()) * 10**9


def test_lone_surrogates_are_refused() -> None:
    assert name_from_utf16("\U0001f427".encode("utf-16-le")) == "\U0001f427".encode()
    with pytest.raises(DirectUnsupportedError):
        name_from_utf16(b"\x00\xd8")
