"""LVM2 on-disk metadata: the label and headers of a physical volume, and the text.

dissect.volume reads the first metadata area only, checks no checksum, and reads lists of
unbounded length, so the few hundred bytes of headers are read here.  Format:
lib/format_text/layout.h and lib/label/label.h of LVM2.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

SECTOR = 512
MDA_HEADER_SIZE = 512
MDA_MAGIC = b" LVM2 x[5A%r0N*>"
MDA_IGNORED = 1
MAX_AREAS = 64
MAX_TEXT = 4 << 20
MAX_DEPTH = 16
INITIAL_CRC = 0xF597A6CF

_TOKEN = re.compile(
    r"""[ \t\r\n]+ | \#[^\n]* | (?P<string>"(?:[^"\\]|\\.)*") | (?P<number>-?\d+(?:\.\d+)?)
    (?![\w.+-]) | (?P<name>[\w.+-]+) | (?P<mark>[{}=\[\],])""",
    re.VERBOSE,
)

Section = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PvHeader:
    """What a physical volume says of itself: its uuid (no dashes) and the VG's text, if any."""

    uuid: str
    device_size: int
    data_start: int
    texts: tuple[str, ...]


def lvm_crc(data: bytes) -> int:
    """LVM's CRC-32: the usual polynomial without the final inversion, another start value."""
    return ~zlib.crc32(data, ~INITIAL_CRC & 0xFFFFFFFF) & 0xFFFFFFFF


def read_pv(stream: BlockStream, name: str) -> PvHeader:
    """Read the physical volume on the device ``name``.  Raises DamagedError."""
    label = _find_label(stream, name)
    offset = struct.unpack_from("<I", label, 20)[0]
    if not 32 <= offset <= SECTOR - 40:
        raise DamagedError(f"{name}: LVM label with a wrong offset")
    uuid, device_size = struct.unpack_from("<32sQ", label, offset)
    if not re.fullmatch(rb"[A-Za-z0-9]{32}", uuid):
        raise DamagedError(f"{name}: LVM physical volume with a malformed id")
    data, end = _locations(label, offset + 40, name)
    areas, _ = _locations(label, end, name)
    texts = [text for start, size in areas if (text := _read_area(stream, start, size, name))]
    return PvHeader(
        uuid=uuid.decode("ascii"),
        device_size=device_size,
        data_start=data[0][0] if data else 0,
        texts=tuple(texts),
    )


def _find_label(stream: BlockStream, name: str) -> bytes:
    for sector in range(4):
        label = stream.read_at(sector * SECTOR, SECTOR)
        if label[:8] != b"LABELONE":
            continue
        number, crc = struct.unpack_from("<QI", label, 8)
        if number != sector or crc != lvm_crc(label[20:]) or label[24:32] != b"LVM2 001":
            raise DamagedError(f"{name}: damaged LVM label")
        return label
    raise DamagedError(f"{name}: no LVM label")


def _locations(block: bytes, offset: int, name: str) -> tuple[list[tuple[int, int]], int]:
    """A list of (offset, size) that an offset of 0 ends, and where it ends."""
    found: list[tuple[int, int]] = []
    while offset + 16 <= len(block):
        start, size = struct.unpack_from("<QQ", block, offset)
        offset += 16
        if not start:
            return found, offset
        found.append((start, size))
    raise DamagedError(f"{name}: an LVM list of areas does not end")


def _read_area(stream: BlockStream, start: int, size: int, name: str) -> str | None:
    """The current metadata text of a metadata area; None if it holds none or is ignored."""
    header = stream.read_at(start, MDA_HEADER_SIZE)
    if len(header) < MDA_HEADER_SIZE:
        raise DamagedError(f"{name}: an LVM metadata area lies outside the volume")
    crc, magic, version, mda_start, mda_size = struct.unpack_from("<I16sIQQ", header)
    if (magic, version, mda_start) != (MDA_MAGIC, 1, start) or crc != lvm_crc(header[4:]):
        raise DamagedError(f"{name}: damaged header of an LVM metadata area")
    offset, length, text_crc, flags = struct.unpack_from("<QQII", header, 40)
    if not offset or flags & MDA_IGNORED:
        return None
    if length > min(MAX_TEXT, mda_size) or not MDA_HEADER_SIZE <= offset < mda_size <= size:
        raise DamagedError(f"{name}: LVM metadata lies outside its area")
    first = min(length, mda_size - offset)
    raw = stream.read_at(start + offset, first)
    raw += stream.read_at(start + MDA_HEADER_SIZE, length - first)  # the area is a ring
    if len(raw) != length or lvm_crc(raw) != text_crc:
        raise DamagedError(f"{name}: LVM metadata with a wrong checksum")
    return raw.rstrip(b"\0").decode("utf-8", errors="surrogateescape")


def parse_text(text: str, name: str) -> Section:
    """Parse LVM's configuration syntax into nested dicts.  Raises DamagedError."""
    root: Section = {}
    stack = [root]
    tokens = _tokens(text, name)
    for kind, word in tokens:
        if word == "}" and kind == "mark":
            stack.pop()
            if not stack:
                break
            continue
        following = next(tokens, ("", ""))
        if kind not in ("name", "number") or following[1] not in ("{", "="):
            raise DamagedError(f"{name}: LVM metadata is garbled at {word[:40]!r}")
        if following[1] == "{":
            child: Section = {}
            stack[-1][word] = child
            stack.append(child)
            if len(stack) > MAX_DEPTH:
                break
        else:
            stack[-1][word] = _value(tokens, name)
    if len(stack) != 1:
        raise DamagedError(f"{name}: LVM metadata has unbalanced brackets")
    return root


def _tokens(text: str, name: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise DamagedError(f"{name}: LVM metadata is garbled")
        position = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match.group(match.lastgroup)


def _value(tokens: Iterator[tuple[str, str]], name: str) -> Any:
    kind, word = next(tokens, ("", ""))
    if kind == "mark" and word == "[":
        items: list[Any] = []
        for inner_kind, inner in tokens:
            if inner_kind == "mark" and inner == "]":
                return items
            if inner_kind != "mark":
                items.append(_scalar(inner_kind, inner, name))
        raise DamagedError(f"{name}: LVM metadata has an endless list")
    return _scalar(kind, word, name)


def _scalar(kind: str, word: str, name: str) -> Any:
    if kind == "number":
        return float(word) if "." in word else int(word[:20])
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", word[1:-1])
    raise DamagedError(f"{name}: LVM metadata is garbled at {word[:40]!r}")
