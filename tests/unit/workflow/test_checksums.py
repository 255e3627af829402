"""Checksums: known values, and POSIX's CRC against its definition."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import UsageError
from imgtools.workflow.checksums import checked_type, checksum

pytestmark = pytest.mark.unit


def by_definition(data: bytes) -> int:
    """cksum as POSIX writes it down: polynomial division bit by bit."""
    length = len(data)
    octets = list(data)
    while length:
        octets.append(length & 0xFF)
        length >>= 8
    value = 0
    for octet in octets:
        value ^= octet << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return ~value & 0xFFFFFFFF


@given(st.binary(max_size=600))
def test_crc_is_posix_cksum(data: bytes) -> None:
    assert checksum(io.BytesIO(data), "crc") == str(by_definition(data))


def test_crc_as_the_tool_prints_it() -> None:
    # printf 'hello\n%.0s' {1..1000} | cksum
    assert checksum(io.BytesIO(b"hello\n" * 1000), "crc") == "2579417781"
    assert checksum(io.BytesIO(b""), "crc") == "4294967295"


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_digests_over_several_chunks(kind: str) -> None:
    data = bytes(range(256)) * 10000
    assert checksum(io.BytesIO(data), kind) == hashlib.new(kind, data).hexdigest()


def test_types_are_libguestfs_s() -> None:
    assert checked_type("SHA256") == "sha256"
    with pytest.raises(UsageError, match="gost"):
        checked_type("gost")
