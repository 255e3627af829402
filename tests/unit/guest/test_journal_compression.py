"""Compressed fields: what comes out is what went in, and never more than the bound."""

from __future__ import annotations

import lzma
import struct

import lz4.block
import pytest

from imgtools.direct.importing import zstd
from imgtools.guest.linux.journal_compression import (
    LZ4,
    XZ,
    ZSTD,
    CannotDecompressError,
    decompress,
)

pytestmark = pytest.mark.unit

VALUE = b"MESSAGE=" + b"all work and no play " * 100


def packed(value: bytes) -> dict[int, bytes]:
    return {
        XZ: lzma.compress(value),
        LZ4: struct.pack("<Q", len(value)) + lz4.block.compress(value, store_size=False),
        ZSTD: zstd().compress(value),
    }


@pytest.mark.parametrize("method", [XZ, LZ4, ZSTD])
def test_whole_and_in_bounds(method: int) -> None:
    data = packed(VALUE)[method]
    assert decompress(data, method, len(VALUE)) == VALUE
    with pytest.raises(CannotDecompressError):
        decompress(data, method, len(VALUE) - 1)


@pytest.mark.parametrize("method", [XZ, LZ4, ZSTD])
def test_a_bomb_and_a_cut(method: int) -> None:
    bomb = packed(bytes(1 << 25))[method]
    with pytest.raises(CannotDecompressError):
        decompress(bomb, method, 1 << 20)
    for data in (b"", b"\0" * 20, packed(VALUE)[method][:-3]):
        with pytest.raises(CannotDecompressError):
            decompress(data, method, 1 << 20)


def test_an_unknown_method() -> None:
    with pytest.raises(CannotDecompressError):
        decompress(b"", 3, 10)
