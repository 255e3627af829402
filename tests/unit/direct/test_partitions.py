"""Partition tables made byte by byte, for the rules and the damage that tools do not make."""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

import pytest

from imgtools.direct.partitions import read_table
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError, DirectUnsupportedError

pytestmark = pytest.mark.unit

MIB = 1 << 20
LINUX = UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")


class Memory(BlockStream):
    def __init__(self, data: bytearray, size: int) -> None:
        super().__init__(size)
        self.data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length].ljust(length, b"\0"))


def mbr(*slots: tuple[int, int, int], boot: int = 0) -> bytes:
    sector = bytearray(512)
    for index, (kind, start, count) in enumerate(slots):
        struct.pack_into("<B3xB3xII", sector, 446 + 16 * index, boot, kind, start, count)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def disk(sectors: dict[int, bytes], size: int = 64 * MIB) -> Memory:
    data = bytearray(max(sectors) * 512 + 512)
    for sector, content in sectors.items():
        end = sector * 512 + len(content)
        data.extend(bytes(max(0, end - len(data))))
        data[sector * 512 : end] = content
    return Memory(data, size)


def gpt_sectors(
    entries: list[tuple[UUID, int, int, str]], *, size: int = 64 * MIB, lba: int = 512
) -> dict[int, bytes]:
    last = size // lba - 1
    array = bytearray(128 * 128)
    for index, (kind, first, final, name) in enumerate(entries):
        struct.pack_into(
            "<16s16sQQQ72s",
            array,
            index * 128,
            kind.bytes_le,
            UUID(int=index + 1).bytes_le,
            first,
            final,
            0,
            name.encode("utf-16-le"),
        )

    def header(mine: int, other: int, table: int) -> bytes:
        raw = bytearray(92)
        struct.pack_into(
            "<8sIIIIQQQQ", raw, 0, b"EFI PART", 0x10000, 92, 0, 0, mine, other, 40, last - 40
        )
        struct.pack_into("<16sQIII", raw, 56, b"g" * 16, table, 128, 128, zlib.crc32(array))
        struct.pack_into("<I", raw, 16, zlib.crc32(raw))
        return bytes(raw)

    unit = lba // 512
    return {
        0: mbr((0xEE, 1, 0xFFFFFFFF)),
        unit: header(1, last, 2),
        2 * unit: bytes(array),
        last * unit: header(last, 1, last - 32),
    }


def test_no_table_on_an_empty_disk_and_on_a_short_one() -> None:
    assert read_table(Memory(bytearray(), 64 * MIB), 512, "/dev/sda") is None
    assert read_table(Memory(bytearray(), 100), 512, "/dev/sda") is None


def test_primary_partitions_keep_their_slots_as_numbers() -> None:
    table = read_table(disk({0: mbr((0, 0, 0), (0x83, 2048, 4096), (0x82, 8192, 100))}), 512, "x")
    assert table is not None
    assert [(e.number, e.start, e.size, e.mbr_id) for e in table.entries] == [
        (2, 2048 * 512, 4096 * 512, 0x83),
        (3, 8192 * 512, 51200, 0x82),
    ]


def test_logical_partitions_count_from_five_and_the_extended_one_is_1_kib() -> None:
    sectors = {
        0: mbr((0x83, 2048, 100), (0x05, 4096, 40000)),
        4096: mbr((0x83, 64, 1000), (0x05, 10000, 5000)),
        14096: mbr((0x8E, 64, 2000), (0x05, 20000, 5000)),
        24096: mbr((0x83, 1, 10)),
    }
    table = read_table(disk(sectors), 512, "/dev/sda")
    assert table is not None
    assert [(e.number, e.start // 512, e.size) for e in table.entries] == [
        (1, 2048, 51200),
        (2, 4096, 1024),
        (5, 4160, 512000),
        (6, 14160, 1024000),
        (7, 24097, 5120),
    ]
    assert [e.extended for e in table.entries] == [False, True, False, False, False]


def test_garbage_in_the_last_slots_of_an_ebr_is_not_a_partition() -> None:
    sectors = {
        0: mbr((0x05, 4096, 40000)),
        4096: mbr((0x83, 64, 1000), (0, 0, 0), (0x83, 90000, 10)),
    }
    table = read_table(disk(sectors), 512, "x")
    assert table is not None
    assert [e.number for e in table.entries] == [1, 5]


def test_a_loop_of_logical_partitions_is_damage() -> None:
    sectors = {
        0: mbr((0x05, 4096, 40000)),
        4096: mbr((0x83, 64, 10), (0x05, 100, 50)),
        4196: mbr((0x83, 1, 10), (0x05, 0, 50)),
    }
    with pytest.raises(DamagedError, match="loops"):
        read_table(disk(sectors), 512, "x")


@pytest.mark.parametrize(
    "slots",
    [
        ((0x83, 2048, 4096), (0x83, 4096, 4096)),
        ((0x83, 2048, 1 << 30),),
        ((0x83, 1 << 30, 10),),
        ((0x05, 2048, 100), (0x0F, 4096, 100)),
        ((0x00, 2048, 100),),
    ],
)
def test_overlapping_and_misplaced_partitions_are_damage(slots: tuple) -> None:
    with pytest.raises(DamagedError):
        read_table(disk({0: mbr(*slots)}), 512, "x")


@pytest.mark.parametrize("kind", [0xA5, 0xA6, 0xA9, 0x42, 0x63, 0xBF])
def test_types_with_tables_of_their_own_are_left_to_the_appliance(kind: int) -> None:
    with pytest.raises(DirectUnsupportedError):
        read_table(disk({0: mbr((kind, 2048, 100))}), 512, "x")


def test_a_boot_sector_with_code_in_the_slots_is_no_table() -> None:
    assert read_table(disk({0: mbr((0x83, 2048, 100), boot=0x33)}), 512, "x") is None


@pytest.mark.parametrize("lba", [512, 4096])
def test_gpt_counts_its_last_sector(lba: int) -> None:
    sectors = gpt_sectors([(LINUX, 64, 127, "root"), (LINUX, 128, 128, "ä")], lba=lba)
    table = read_table(disk(sectors), lba, "/dev/sda")
    assert table is not None
    assert table.kind == "gpt"
    assert [(e.number, e.start, e.size, e.label) for e in table.entries] == [
        (1, 64 * lba, 64 * lba, "root"),
        (2, 128 * lba, lba, "ä"),
    ]
    assert table.entries[0].gpt_type == str(LINUX).upper()


def test_a_hybrid_mbr_is_gpt() -> None:
    sectors = gpt_sectors([(LINUX, 64, 127, "root")])
    sectors[0] = mbr((0xEE, 1, 63), (0x83, 64, 64))
    table = read_table(disk(sectors), 512, "x")
    assert table is not None
    assert (table.kind, len(table.entries)) == ("gpt", 1)


@pytest.mark.parametrize("place", [(1, 20), (2, 40), (1, 60), (64 * MIB // 512 - 1, 3)])
def test_a_flipped_bit_in_gpt_is_damage(place: tuple[int, int]) -> None:
    sectors = gpt_sectors([(LINUX, 64, 127, "root")])
    sector, byte = place
    broken = bytearray(sectors[sector])
    broken[byte] ^= 1
    sectors[sector] = bytes(broken)
    with pytest.raises(DamagedError):
        read_table(disk(sectors), 512, "x")


def test_gpt_without_a_protective_mbr_is_damage() -> None:
    sectors = gpt_sectors([(LINUX, 64, 127, "root")])
    del sectors[0]
    with pytest.raises(DamagedError, match="protective"):
        read_table(disk(sectors), 512, "x")


def test_gpt_read_with_the_wrong_sector_size_is_damage() -> None:
    sectors = gpt_sectors([(LINUX, 64, 127, "root")], lba=4096)
    with pytest.raises(DamagedError):
        read_table(disk(sectors), 512, "x")


@pytest.mark.parametrize(
    ("sector", "content"),
    [(1, b"WEV\x82"), (0, b"\x0b\xe5\xa9\x41"), (0, b"RDSK"), (6, b"PRIVHEAD")],
)
def test_other_labels_are_left_to_the_appliance(sector: int, content: bytes) -> None:
    with pytest.raises(DirectUnsupportedError):
        read_table(disk({sector: content, 9: b""}), 512, "x")
