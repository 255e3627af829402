"""Streams: positions, borders, short sources, and whose exceptions come out."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from imgtools.direct.guard import GuardedStream, guard
from imgtools.direct.streams import (
    CACHE_BLOCK,
    Adapter,
    BlockStream,
    Cached,
    Extended,
    FileStream,
    Joined,
    Padded,
    Window,
    Zeros,
)
from imgtools.direct.striping import Parity, Raid10, Striped, Zones
from imgtools.errors import (
    DamagedError,
    DirectUnsupportedError,
    ImageUnreadableError,
    MissingBindingError,
)

pytestmark = pytest.mark.unit


class Memory(BlockStream):
    def __init__(self, data: bytes, size: int | None = None) -> None:
        super().__init__(len(data) if size is None else size)
        self.data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


PATTERN = bytes(range(251)) * 20


def test_reading_stops_at_the_end_like_a_device() -> None:
    stream = Memory(PATTERN)
    assert stream.seek(-10, io.SEEK_END) == len(PATTERN) - 10
    assert stream.read(100) == PATTERN[-10:]
    assert stream.read(1) == b""
    assert stream.seek(10**9) == 10**9
    assert stream.read() == b""
    with pytest.raises(ValueError, match="negative"):
        stream.seek(-1)


def test_readinto_and_buffered_readers() -> None:
    reader = io.BufferedReader(Memory(PATTERN), 64)
    assert reader.read(1000) == PATTERN[:1000]


def test_a_source_that_ends_early_is_damage() -> None:
    with pytest.raises(DamagedError):
        Memory(b"abc", size=10).read_at(0, 10)


def test_windows_do_not_leave_their_source() -> None:
    window = Window(Window(Memory(PATTERN), 100, 1000), 50, 20)
    assert window.start == 150
    assert window.read_at(0, 100) == PATTERN[150:170]


def test_joined_reads_across_its_parts() -> None:
    joined = Joined([Memory(b"abc"), Zeros(2), Memory(b"de")])
    assert joined.read_at(0, 100) == b"abc\0\0de"
    assert joined.read_at(2, 4) == b"c\0\0d"
    assert joined.read_at(5, 1) == b"d"


def test_extended_and_padded_go_on_with_zeros() -> None:
    assert Extended(Memory(b"ab"), 4).read_at(1, 9) == b"b\0\0"
    assert Padded(Memory(b"abc"), 4).read_at(0, 9) == b"abc\0"


def test_adapter_cuts_reads_at_pieces() -> None:
    calls = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            calls.append(size)
            return super().read(size)

    adapter = Adapter(Source(PATTERN), len(PATTERN), piece=100)
    assert adapter.read_at(150, 220) == PATTERN[150:370]
    assert calls == [50, 100, 70]


@pytest.mark.parametrize("offset", [0, 5, CACHE_BLOCK - 1, CACHE_BLOCK * 3 - 7])
@pytest.mark.parametrize("length", [1, 9, CACHE_BLOCK, CACHE_BLOCK * 5])
def test_the_cache_returns_what_the_source_holds(offset: int, length: int) -> None:
    data = PATTERN * 100
    cached = Cached(Memory(data), "x")
    assert cached.read_at(offset, length) == data[offset : offset + length]
    assert cached.read_at(offset, length) == data[offset : offset + length]


def test_the_cache_translates_errors() -> None:
    class Broken(BlockStream):
        def _read_at(self, offset: int, length: int) -> bytes:
            raise struct.error("unpack requires a buffer of 4 bytes")

    with pytest.raises(DamagedError, match=r"disk\.img"):
        Cached(Broken(100), "disk.img").read_at(0, 10)


def test_a_file_is_as_long_as_whole_sectors(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"a" * 700)
    stream = FileStream(file, 1024)
    assert stream.read_at(0, 2000) == b"a" * 700 + bytes(324)
    with pytest.raises(DamagedError):
        FileStream(file, 4096).read_at(0, 4096)
    with pytest.raises(ImageUnreadableError):
        FileStream(tmp_path / "missing")


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (struct.error("x"), DamagedError),
        (RecursionError("deep"), DamagedError),
        (MemoryError(), DamagedError),
        (OverflowError("x"), DamagedError),
        (EOFError(), DamagedError),
        (NotImplementedError("compression"), DirectUnsupportedError),
        (ModuleNotFoundError("No module named 'dissect'"), MissingBindingError),
        (PermissionError(13, "Permission denied", "disk.img"), ImageUnreadableError),
        (DirectUnsupportedError("as it is"), DirectUnsupportedError),
    ],
)
def test_guard_lets_only_our_errors_out(raised: Exception, becomes: type) -> None:
    with pytest.raises(becomes) as caught, guard("/dev/sda1"):
        raise raised
    assert "\n" not in str(caught.value)


def test_guarded_stream_refuses_to_end_early() -> None:
    stream = GuardedStream(io.BytesIO(b"abc"), 5, "file")
    assert stream.read(3) == b"abc"
    with pytest.raises(DamagedError):
        stream.read(2)


# --- layouts, against plain models of what the kernel's code says ------------------------------

CHUNK = 8


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def test_striped_deals_out_in_turn() -> None:
    data = PATTERN[: CHUNK * 12]
    legs = [Memory(b"".join(chunks(data)[index::3])) for index in range(3)]
    striped = Striped(legs, CHUNK)
    assert striped.read_at(0, 1000) == data
    assert striped.read_at(13, 30) == data[13:43]
    with pytest.raises(DamagedError):
        Striped([Memory(bytes(16)), Memory(bytes(24))], CHUNK)


@pytest.mark.parametrize("original", [False, True])
def test_zones_go_on_where_the_small_legs_are_full(original: bool) -> None:
    sizes = [2, 5, 3, 5]
    rows: list[list[bytes]] = [[] for _ in sizes]
    data = b""
    number = 0
    for low, high in ((0, 2), (2, 3), (3, 5)):
        users = [leg for leg, size in enumerate(sizes) if size >= high]
        for _ in range(low, high):
            slots = {}
            for _ in users:
                in_zone = number if original else len(slots)
                chunk = bytes([number]) * CHUNK
                slots[users[in_zone % len(users)]] = chunk
                data += chunk
                number += 1
            for leg, chunk in slots.items():
                rows[leg].append(chunk)
    zones = Zones([Memory(b"".join(row)) for row in rows], CHUNK, original=original)
    assert zones.read_at(0, 10**6) == data


@pytest.mark.parametrize("level", [4, 5, 6])
@pytest.mark.parametrize("layout", range(6))
def test_parity_is_worked_out_for_every_missing_disk(level: int, layout: int) -> None:
    disks, rows = 5, 12
    data_disks = disks - (2 if level == 6 else 1)
    array = Parity(
        {n: Zeros(rows * CHUNK) for n in range(disks)}, disks, CHUNK, level, layout, rows * CHUNK
    )
    legs = [bytearray(rows * CHUNK) for _ in range(disks)]
    data = PATTERN[: rows * data_disks * CHUNK]
    for index, chunk in enumerate(chunks(data)):
        row, disk, q_disk = array._place(index)
        legs[disk][row * CHUNK : (row + 1) * CHUNK] = chunk
        assert disk != q_disk
    for row in range(rows):
        used = {array._place(row * data_disks + n)[1] for n in range(data_disks)}
        q_disk = array._place(row * data_disks)[2]
        (parity,) = set(range(disks)) - used - {q_disk}
        for at in range(row * CHUNK, (row + 1) * CHUNK):
            for disk in used:
                legs[parity][at] ^= legs[disk][at]
    for missing in range(disks):
        present = {n: Memory(bytes(leg)) for n, leg in enumerate(legs) if n != missing}
        degraded = Parity(present, disks, CHUNK, level, layout, rows * CHUNK)
        assert degraded.read_at(3, 500) == data[3:503]
    with pytest.raises(DirectUnsupportedError):
        Parity({0: Zeros(8), 1: Zeros(8)}, disks, CHUNK, level, layout, rows * CHUNK)


def test_raid10_without_any_copy_is_refused() -> None:
    array = Raid10({0: Zeros(80), 1: Zeros(80)}, 4, CHUNK, 0x102, 80)
    with pytest.raises(DirectUnsupportedError):
        array.read_at(CHUNK, CHUNK)
