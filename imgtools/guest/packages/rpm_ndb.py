"""Header blobs from ``Packages.db``, rpm's own "ndb" format, used by SUSE.

Format: rpm's lib/backend/ndb/rpmpkg.c.  Little-endian.  A header of 32 bytes gives the number of
4096-byte slot pages; each slot of 16 bytes gives a package number and the place of its blob in
16-byte blocks; a blob has a head (magic, number, generation, length) before its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from imgtools.guest.packages.application import Collection
from imgtools.guest.packages.rpm_header import MAX_DATA

_HEADER = struct.Struct("<4sIIII")
_SLOT = struct.Struct("<4sIII")
_BLOB = struct.Struct("<4sIII")
_PAGE = 4096
_BLOCK = 16
_FIRST_SLOT = 2  # the file header takes the room of two
MAX_SLOT_PAGES = 4096  # a million packages


def ndb_blobs(stream: BinaryIO, found: Collection) -> Iterator[bytes]:
    """Yield the header blobs of the database, by package number."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        found.complain("Packages.db: truncated")
        return
    magic, version, _generation, pages, _next = _HEADER.unpack(head)
    if magic != b"RpmP" or version != 0 or not 0 < pages <= MAX_SLOT_PAGES:
        found.complain("Packages.db: not an rpm ndb database")
        return
    stream.seek(0)
    slots = stream.read(pages * _PAGE)
    if len(slots) < pages * _PAGE:
        found.complain("Packages.db: truncated; some packages may be left out")
    packages = []
    for offset in range(_FIRST_SLOT * _SLOT.size, len(slots) - _SLOT.size + 1, _SLOT.size):
        magic, number, start, count = _SLOT.unpack_from(slots, offset)
        if magic == b"Slot" and number and start:
            packages.append((number, start, count))
    bad = 0
    for number, start, count in sorted(packages):
        blob = _blob(stream, number, start, count)
        if blob is None:
            bad += 1
        else:
            yield blob
    if bad:
        found.complain(f"Packages.db: {bad} damaged entries are left out")


def _blob(stream: BinaryIO, number: int, start: int, count: int) -> bytes | None:
    stream.seek(start * _BLOCK)
    head = stream.read(_BLOB.size)
    if len(head) < _BLOB.size:
        return None
    magic, own, _generation, length = _BLOB.unpack(head)
    if magic != b"BlbS" or own != number or length > min(MAX_DATA, count * _BLOCK):
        return None
    data = stream.read(length)
    return data if len(data) == length else None
