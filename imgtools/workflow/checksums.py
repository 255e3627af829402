"""Checksums of files, by the names of ``guestfs_checksum``."""

from __future__ import annotations

import hashlib
import zlib
from typing import BinaryIO, Protocol

from imgtools.errors import UsageError

CHECKSUMS = ("crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512")
CHUNK = 1 << 20

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class PosixCrc:
    """The CRC of cksum(1) as POSIX defines it: most significant bit first, length appended.

    zlib's CRC uses the same polynomial with the bits of every byte, and of the result, in
    reverse; so does this, and it runs at zlib's speed.
    """

    def __init__(self) -> None:
        # zlib inverts before and after; POSIX starts at zero and inverts only after.
        self._value = 0xFFFFFFFF
        self._length = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._value = zlib.crc32(data.translate(_REVERSED), self._value)
        self._length += len(data)

    def hexdigest(self) -> str:
        """The checksum, in decimal as cksum prints it."""
        length = self._length.to_bytes((self._length.bit_length() + 7) // 8, "little")
        value = zlib.crc32(length.translate(_REVERSED), self._value)
        return str(int(f"{value:032b}"[::-1], 2))


def checked_type(name: str) -> str:
    """The name in lower case.  Raises UsageError for an unknown one."""
    lower = name.lower()
    if lower not in CHECKSUMS:
        raise UsageError(f"--checksum={name}: unknown", hint=f"known: {', '.join(CHECKSUMS)}")
    return lower


def checksum(stream: BinaryIO, kind: str) -> str:
    """The checksum of what is left in ``stream``, as the tools (md5sum, cksum …) write it."""
    digest = _digest(kind)
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _digest(kind: str) -> _Digest:
    if kind == "crc":
        return PosixCrc()
    return hashlib.new(kind, usedforsecurity=False)
