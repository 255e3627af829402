"""Vet a Hyper-V VHDX.  Sources: [MS-VHDX], and block/vhdx.h of qemu."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from imgtools.errors import ImageError
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.signature import VHDX
from imgtools.image.source import Source

_KIB64 = 64 << 10
MAX_ENTRIES = 2047
MAX_SIZE = 64 << 40
MAX_LOG = 16 << 20
_BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PARENT = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le

_Bad = Callable[[str, str], None]


@dataclass(slots=True)
class _Facts:
    size: int = 0
    block: int | None = None
    sector: int = 512
    fixed: bool = False
    has_parent: bool = False
    parent: str | None = None


def vet(source: Source, *, stated: bool) -> ImageHeader:
    """Read the header, region table and metadata of a VHDX.  Raises ImageError when it is none."""
    if source.peek(0, 8) != VHDX:
        raise ImageError(f"{source.path}: not a VHDX image (no signature)")
    problems: list[Problem] = []
    dirty = _log_has_entries(source, problems)
    regions = _table(source, 3 * _KIB64, b"regi", 16, 8) or _table(
        source, 4 * _KIB64, b"regi", 16, 8
    )
    facts = _metadata(source, regions, problems)
    if dirty:
        message = (
            "its log holds writes that were not applied; close it cleanly in Hyper-V, or run "
            "qemu-img check -r all on a copy"
        )
        problems.append(Problem(code="vhdx.log", message=message))
    if facts.has_parent:
        message = f"a differencing VHDX, which cannot be read; its parent is {facts.parent!r}"
        problems.append(Problem(code="vhdx.unsupported", message=message))
    variant = "differencing" if facts.has_parent else "fixed" if facts.fixed else "dynamic"
    parent = facts.parent.encode("utf-8", "surrogatepass") if facts.parent else None
    return ImageHeader(
        path=source.path,
        format="vhdx",
        stated=stated,
        file_size=source.size,
        virtual_size=facts.size,
        identity=source.identity,
        version=1,
        variant=variant,
        cluster_size=facts.block,
        backing_file=parent,
        backing_format="vhdx" if parent else None,
        needs_parent=facts.has_parent,
        dirty=dirty,
        features=() if facts.sector == 512 else (f"sectors of {facts.sector} bytes",),
        problems=tuple(problems),
    )


def _log_has_entries(source: Source, problems: list[Problem]) -> bool:
    """True when the current header's log holds an entry of its own generation."""
    headers = []
    for offset in (_KIB64, 2 * _KIB64):
        raw = source.peek(offset, 80)
        if raw[:4] == b"head" and len(raw) == 80:
            headers.append((struct.unpack("<Q", raw[8:16])[0], raw))
    if not headers:
        problems.append(Problem(code="vhdx.header", message="both of its headers are damaged"))
        return False
    raw = max(headers)[1]
    guid = raw[48:64]
    length, offset = struct.unpack("<IQ", raw[68:80])
    if not any(guid):
        return False
    log = source.peek(offset, min(length, MAX_LOG))
    return any(
        log[place : place + 4] == b"loge" and log[place + 32 : place + 48] == guid
        for place in range(0, len(log), 4096)
    )


def _table(
    source: Source, offset: int, signature: bytes, first: int, count_at: int
) -> dict[bytes, tuple[int, int]]:
    """A region or metadata table: GUID to (offset, length).  Empty when damaged."""
    raw = source.peek(offset, _KIB64)
    if len(raw) < _KIB64 or raw[: len(signature)] != signature:
        return {}
    if signature == b"regi":
        (count,) = struct.unpack("<I", raw[count_at : count_at + 4])
        shape = "<16sQII"
    else:
        (count,) = struct.unpack("<H", raw[count_at : count_at + 2])
        shape = "<16sIIII"
    found: dict[bytes, tuple[int, int]] = {}
    for index in range(min(count, MAX_ENTRIES)):
        start = first + index * 32
        if start + 32 > len(raw):
            break
        guid, place, length = struct.unpack(shape, raw[start : start + 32])[:3]
        found.setdefault(guid, (place, length))
    return found


def _metadata(
    source: Source, regions: dict[bytes, tuple[int, int]], problems: list[Problem]
) -> _Facts:
    facts = _Facts()

    def bad(code: str, message: str) -> None:
        problems.append(Problem(code=f"vhdx.{code}", message=message))

    if _METADATA not in regions or _BAT not in regions:
        bad("regions", "its region table is damaged")
        return facts
    base = regions[_METADATA][0]
    items = _table(source, base, b"metadata", 32, 10)

    def item(guid: bytes, length: int) -> bytes:
        place, stored = items.get(guid, (0, 0))
        return source.peek(base + place, length) if stored >= length else b""

    parameters, size, sector = item(_PARAMETERS, 8), item(_SIZE, 8), item(_SECTOR, 4)
    if len(parameters) < 8 or len(size) < 8 or len(sector) < 4:
        bad("metadata", "truncated: its metadata is damaged or beyond the end of the file")
        return facts
    facts.block, bits = struct.unpack("<II", parameters)
    (facts.size,), (facts.sector,) = struct.unpack("<Q", size), struct.unpack("<I", sector)
    facts.fixed, facts.has_parent = bool(bits & 1), bool(bits & 2)
    _check(source, facts, regions[_BAT], bad)
    if facts.has_parent:
        facts.parent = _parent_name(source, base, items.get(_PARENT, (0, 0)))
    return facts


def _check(source: Source, facts: _Facts, bat: tuple[int, int], bad: _Bad) -> None:
    block = facts.block or 0
    if not 1 << 20 <= block <= 256 << 20 or block & (block - 1):
        bad("block", f"blocks of {block} bytes make no sense")
    elif facts.sector not in (512, 4096):
        bad("sector", f"sectors of {facts.sector} bytes make no sense")
    elif facts.size > MAX_SIZE or facts.size % facts.sector:
        bad("size", f"the virtual size of {facts.size} bytes is beyond VHDX (64 TiB)")
    elif -(-facts.size // block) * 8 > bat[1]:
        bad("bat", f"its block table of {bat[1]} bytes does not cover {facts.size} bytes")
    elif bat[0] + -(-facts.size // block) * 8 > source.size:
        bad("truncated", "truncated: its block table is beyond the end of the file")


def _parent_name(source: Source, base: int, place: tuple[int, int]) -> str | None:
    """The most telling of the locator's entries (keys and values are UTF-16LE)."""
    raw = source.peek(base + place[0], min(place[1], 1 << 20))
    if len(raw) < 20:
        return None
    (count,) = struct.unpack("<H", raw[18:20])
    entries: dict[str, str] = {}
    for index in range(min(count, 64)):
        start = 20 + index * 12
        if start + 12 > len(raw):
            break
        key, value, key_length, value_length = struct.unpack("<IIHH", raw[start : start + 12])
        name = raw[key : key + key_length].decode("utf-16-le", errors="replace")
        entries[name] = raw[value : value + value_length].decode("utf-16-le", errors="replace")
    order = ("relative_path", "absolute_win32_path", "volume_path", "parent_linkage")
    return next((entries[name] for name in order if entries.get(name)), None)
