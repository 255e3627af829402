"""One installed package from an rpm header blob.

Format: rpm's docs/manual/format_header.md and format_v4.md: two big-endian counts (index entries,
bytes of data), the index (tag, type, offset, count; 16 bytes each), the data.  A blob comes from
the guest, so every offset is checked against the data; a value that lies is left out.
"""

from __future__ import annotations

import struct

from imgtools.guest.packages.application import MAX_EPOCH, MAX_FIELD, Application, text

MAX_INDEX = 0xFFFF  # rpm's own limit, lib/header.c
MAX_DATA = 16 << 20  # the largest real ones have 5 MiB; rpm's own limit is 256

_NAME, _VERSION, _RELEASE, _EPOCH, _SUMMARY, _DESCRIPTION = range(1000, 1006)
_VENDOR, _PACKAGER, _URL, _ARCH, _SOURCERPM = 1011, 1015, 1020, 1022, 1044
_TEXT_TAGS = frozenset(
    (_NAME, _VERSION, _RELEASE, _SUMMARY, _DESCRIPTION, _VENDOR, _PACKAGER, _URL, _ARCH, _SOURCERPM)
)
_INT32, _STRING, _STRING_ARRAY, _I18NSTRING = 4, 6, 8, 9
_ENTRY = struct.Struct(">IIII")
_NO_PACKAGER = b"(none)"


def parse_header(blob: bytes) -> Application | None:
    """The package a header blob describes, None if the blob is damaged or has no name."""
    if len(blob) < 8:
        return None
    entries, size = struct.unpack_from(">II", blob)
    if entries > MAX_INDEX or size > MAX_DATA or 8 + 16 * entries + size > len(blob):
        return None
    data = memoryview(blob)[8 + 16 * entries : 8 + 16 * entries + size]
    values: dict[int, bytes] = {}
    epoch = 0
    for tag, kind, offset, count in _ENTRY.iter_unpack(blob[8 : 8 + 16 * entries]):
        if offset >= size or not count:
            continue
        if tag in _TEXT_TAGS and kind in (_STRING, _STRING_ARRAY, _I18NSTRING):
            # The first string of an i18n table is the one of the C locale.
            values[tag] = _string_at(data, offset)
        elif tag == _EPOCH and kind == _INT32 and offset + 4 <= size:
            epoch = int.from_bytes(data[offset : offset + 4], "big")
    name = values.get(_NAME)
    if not name:
        return None
    return Application(
        name=text(name),
        epoch=epoch if epoch <= MAX_EPOCH else 0,
        version=text(values.get(_VERSION, b"")),
        release=text(values.get(_RELEASE, b"")),
        arch=text(values.get(_ARCH, b"")),
        publisher=text(values.get(_VENDOR) or values.get(_PACKAGER, b"")),
        url=text(values.get(_URL, b"")),
        source_package=text(_without_none(values.get(_SOURCERPM, b""))),
        summary=text(values.get(_SUMMARY, b"")),
        description=text(values.get(_DESCRIPTION, b"")),
    )


def _string_at(data: memoryview, offset: int) -> bytes:
    return bytes(data[offset : offset + MAX_FIELD]).split(b"\0", 1)[0]


def _without_none(value: bytes) -> bytes:
    return b"" if value == _NO_PACKAGER else value
