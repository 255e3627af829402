"""Header blobs from ``Packages``, a Berkeley DB hash, rpm's database until 2020.

Format: Berkeley DB's src/dbinc/db_page.h (hash, versions 8 to 10).  A page of metadata, then pages
of key and value items; a value that does not fit lies on a chain of overflow pages.  A reader of
our own, and not dissect's, since the package list must also work where the ``direct`` extra is
not installed; every page is visited once, and a chain never goes on longer than the blob it
promised.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from imgtools.guest.packages.application import Collection
from imgtools.guest.packages.rpm_header import MAX_DATA

_MAGIC = 0x061561
_PAGE_HEAD = 26
_HASH_UNSORTED, _OVERFLOW, _HASH = 2, 7, 13
_KEYDATA, _OFFPAGE = 1, 3
MAX_PAGES = 1 << 21
_CHUNK = 1 << 17  # a multiple of every page size
_CHUNKS = 16
MAX_TOTAL = 1 << 30


@dataclass(slots=True)
class _File:
    stream: BinaryIO
    order: str
    page_size: int
    last_page: int
    taken: int = 0
    _chunks: dict[int, bytes] = field(default_factory=dict)

    def page(self, number: int) -> bytes | None:
        if not 0 < number <= self.last_page:
            return None
        chunk, offset = divmod(number * self.page_size, _CHUNK)
        if chunk not in self._chunks:
            if len(self._chunks) >= _CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            self.stream.seek(chunk * _CHUNK)
            self._chunks[chunk] = self.stream.read(_CHUNK)
        data = self._chunks[chunk][offset : offset + self.page_size]
        return data if len(data) == self.page_size else None

    def word(self, page: bytes, offset: int) -> int:
        return int(struct.unpack_from(self.order + "I", page, offset)[0])


def bdb_blobs(stream: BinaryIO, found: Collection) -> Iterator[bytes]:
    """Yield the header blobs of the database, in the order of its pages."""
    file = _open(stream)
    if file is None:
        found.complain("Packages: not a Berkeley DB hash")
        return
    bad = 0
    for number in range(1, file.last_page + 1):
        page = file.page(number)
        if page is None:
            found.complain("Packages: truncated; some packages may be left out")
            break
        if page[25] not in (_HASH, _HASH_UNSORTED):
            continue
        for blob in _values(file, page):
            if blob is None:
                bad += 1
            elif len(blob) > 8:  # the record with key 0 holds the last number only
                yield blob
        if file.taken > MAX_TOTAL:
            found.complain("Packages: too large; the rest is unread")
            break
    if bad:
        found.complain(f"Packages: {bad} damaged entries are left out")


def _open(stream: BinaryIO) -> _File | None:
    head = stream.read(72)
    if len(head) < 72:
        return None
    for order in "<", ">":
        magic, _version, page_size = struct.unpack_from(order + "III", head, 12)
        if magic == _MAGIC and page_size in {512 << shift for shift in range(8)}:
            last = struct.unpack_from(order + "I", head, 32)[0]
            return _File(stream, order, page_size, min(last, MAX_PAGES))
    return None


def _values(file: _File, page: bytes) -> Iterator[bytes | None]:
    """The values of a hash page; None for one that is damaged.  Items come as key, value."""
    (count,) = struct.unpack_from(file.order + "H", page, 20)
    count = min(count, (file.page_size - _PAGE_HEAD) // 2)
    places = struct.unpack_from(f"{file.order}{count}H", page, _PAGE_HEAD)
    for index in range(1, count, 2):
        start, before = places[index], places[index - 1]
        # Items grow down from the page's end, so the item before ends where this one begins.
        if not _PAGE_HEAD <= start < before <= file.page_size:
            yield None
        elif page[start] == _KEYDATA:
            yield page[start + 1 : before]
        elif page[start] == _OFFPAGE and start + 12 <= file.page_size:
            yield _chain(file, file.word(page, start + 4), file.word(page, start + 8))
        # Duplicates (types 2 and 4) never occur in Packages.


def _chain(file: _File, number: int, length: int) -> bytes | None:
    if length > MAX_DATA:
        return None
    parts: list[bytes] = []
    left = length
    while left > 0:
        page = file.page(number)
        if page is None or page[25] != _OVERFLOW:
            return None
        (used,) = struct.unpack_from(file.order + "H", page, 22)
        room = file.page_size - _PAGE_HEAD
        part = page[_PAGE_HEAD : _PAGE_HEAD + min(used, left, room)]
        if len(part) < min(left, room):  # only a chain's last page may have room left
            return None
        parts.append(part)
        left -= len(part)
        file.taken += file.page_size
        if file.taken > MAX_TOTAL:
            return None
        number = file.word(page, 16)
    return b"".join(parts)
