"""Text in an initramfs of every compression, found and replaced without unpacking it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
from collections.abc import Callable

import lz4.block
import pytest

from fixtures.cpio import archive
from imgtools.direct.importing import zstd
from imgtools.errors import GuestOperationError
from imgtools.guest.linux import initramfs
from imgtools.guest.linux.initramfs import DamagedInitramfsError, Text, rewritten, scan

pytestmark = pytest.mark.unit

OLD, NEW = b"f3c8b47a-df68", b"01234567-89ab"
TEXT = Text(
    names=lambda data: OLD in data, replace=lambda data: data.replace(OLD, NEW), longest=len(OLD)
)


def cpio(*files: tuple[bytes, bytes], magic: bytes = b"070701") -> bytes:
    return archive({name.decode(): content for name, content in files}, magic)


def lz4_legacy(data: bytes) -> bytes:
    blocks = [data[at : at + (8 << 20)] for at in range(0, len(data), 8 << 20)]
    packed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(one)) + one for one in packed)


def unlz4(data: bytes) -> bytes:
    out, at = b"", 4
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        out += lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=8 << 20)
        at += 4 + size
    return out


WAYS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip.compress, gzip.decompress),
    "xz": (lambda data: lzma.compress(data, check=lzma.CHECK_CRC32), lzma.decompress),
    "lzma": (lambda data: lzma.compress(data, lzma.FORMAT_ALONE), lzma.decompress),
    "bzip2": (bz2.compress, bz2.decompress),
    "zstd": (lambda data: zstd().compress(data), lambda data: zstd().decompress(data)),
    "lz4": (lz4_legacy, unlz4),
}
NOISE = random.Random(1).randbytes(90_000)  # no compression makes it small
EARLY = cpio((b"kernel/x86/microcode/GenuineIntel.bin", bytes(3000)))


def run(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    return b"".join(rewritten(stream, scan(stream, TEXT), TEXT))


@pytest.mark.parametrize("way", WAYS)
def test_text_is_replaced_and_the_rest_is_as_it_was(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # small pieces, so that text lies across them
    monkeypatch.setattr(initramfs, "_OUT", 1000)
    monkeypatch.setattr(initramfs, "_PIECE", 100)
    pack, unpack = WAYS[way]
    everywhere = b"".join(NOISE[at : at + 991] + OLD for at in range(0, len(NOISE), 991))
    inner = cpio((b"a", everywhere), (b"cmdline-" + OLD, OLD), (b"b", b"x"))
    other = pack(cpio((b"c", b"nothing")))
    found = scan(io.BytesIO(EARLY + bytes(512) + pack(inner)), TEXT)
    assert [(part.method, part.found) for part in found] == [
        ("plain", False), ("plain", False), (way, True),
    ]  # fmt: skip
    result = run(EARLY + bytes(512) + pack(inner))
    assert result.startswith(EARLY + bytes(512))
    assert unpack(result[len(EARLY) + 512 :]) == inner.replace(OLD, NEW)
    # a part that does not name it stays byte for byte, also before one that does
    both = run(other + bytes(4) + cpio((b"d", OLD)))
    assert both == other + bytes(4) + cpio((b"d", NEW))
    assert run(EARLY + other) == EARLY + other


def test_xz_is_as_linux_can_read_it() -> None:
    packed = run(lzma.compress(cpio((b"a", OLD)), check=lzma.CHECK_CRC32))
    assert packed[6:8] == b"\x00\x01"  # a check by CRC32


@pytest.mark.parametrize(
    "data",
    [
        b"no initramfs",
        cpio((b"a", b"x"))[:-200],
        cpio((b"a", b"x")).replace(b"070701", b"07070x"),
        b"070701" + b"Z" * 104,
        b"070701" + b"F" * 104,
        gzip.compress(NOISE)[:-9000],
        b"\x1f\x8b" + bytes(100),
        lzma.compress(NOISE)[:5000],
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
        b"\x02\x21\x4c\x18" + struct.pack("<I", 100) + b"\xff" * 100,
    ],
)
def test_what_no_kernel_can_unpack_is_said_to_be_damaged(data: bytes) -> None:
    with pytest.raises(DamagedInitramfsError):
        scan(io.BytesIO(data), TEXT)


def test_what_cannot_be_looked_into_is_an_error() -> None:
    with pytest.raises(GuestOperationError, match="lzo, which cannot") as caught:
        scan(io.BytesIO(b"\x89LZO\0\r\n\x1a\n"), TEXT)
    assert not isinstance(caught.value, DamagedInitramfsError)
    summed = gzip.compress(cpio((b"a", OLD), magic=b"070702"))
    with pytest.raises(GuestOperationError, match="checksums of its files"):
        scan(io.BytesIO(summed), TEXT)


def test_nothing_is_an_initramfs_without_parts() -> None:
    assert scan(io.BytesIO(b""), TEXT) == []
    assert run(bytes(5000)) == bytes(5000)


@pytest.mark.parametrize("before", range(80, 101))
def test_text_across_two_pieces_is_found(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "_OUT", 100)
    data = cpio((b"a", bytes(before) + OLD + bytes(200)))
    assert run(data) == data.replace(OLD, NEW)


@pytest.mark.parametrize("bound", ["MAX_PACKED", "MAX_UNPACKED"])
def test_there_are_bounds(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, bound, 50_000)
    for data in bytes(60_000), gzip.compress(NOISE):
        with pytest.raises(DamagedInitramfsError, match="larger than any"):
            scan(io.BytesIO(data), TEXT)
