"""``y/abc/xyz/``: characters for characters, as perlop(1) has it."""

from __future__ import annotations

import re

from imgtools.errors import UsageError
from imgtools.guest.editing.patterns import literal

_UNIT = re.compile(rb"\\x[0-9A-Fa-f]{1,2}|\\.|.", re.DOTALL)


def deleted_and_table(
    source_text: bytes, target_text: bytes, delete: bool, where: str
) -> tuple[bytes, bytes]:
    """The characters to delete and the table for `bytes.translate`.  Raises UsageError."""
    source, target = _characters(source_text, where), _characters(target_text, where)
    if not delete:
        target = target or source
        target += target[-1:] * (len(source) - len(target))
    table = bytearray(range(256))
    # Of two entries for one character the first counts.
    for old, new in reversed(list(zip(source, target, strict=False))):
        table[old] = new
    gone = bytes(set(source[len(target) :]) - set(source[: len(target)])) if delete else b""
    return gone, bytes(table)


def _characters(text: bytes, where: str) -> bytes:
    """The characters that one side lists, ranges written out; an escaped dash is a dash."""
    if not text.isascii():
        # Bytes for bytes would break characters apart.
        raise UsageError(f"{where}: only ASCII characters in y", hint="s/X/Y/g takes any")
    units = _UNIT.findall(text)
    plain = [literal(unit, where) if unit[:1] == b"\\" else unit for unit in units]
    out = bytearray()
    index = 0
    while index < len(units):
        if units[index + 1 : index + 2] == [b"-"] and index + 2 < len(units):
            first, last = plain[index][0], plain[index + 2][0]
            if first > last:
                raise UsageError(f"{where}: a range runs backwards")
            out += bytes(range(first, last + 1))
            index += 3
        else:
            out += plain[index]
            index += 1
    return bytes(out)
