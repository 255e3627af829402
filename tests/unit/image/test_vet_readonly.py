"""Headers of bochs, cloop and dmg images that lie."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from fixtures.readonly import BZIP2, RAW, bochs, cloop, dmg
from imgtools.errors import ImageError, ImageTruncatedError
from imgtools.image.vet import vet

pytestmark = pytest.mark.unit

DISK = os.urandom(200_000).ljust(1 << 18, b"\0")
ADC, LZFSE = 0x80000004, 0x80000007


def _patched(data: bytes, offset: int, value: bytes) -> bytes:
    if offset < 0:
        offset += len(data)
    return data[:offset] + value + data[offset + len(value) :]


def _little(value: int) -> bytes:
    return struct.pack("<I", value)


def _big(value: int) -> bytes:
    return struct.pack(">I", value)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("bochs", bochs(DISK)),
        ("bochs", bochs(DISK, version=1)),
        ("cloop", cloop(DISK)),
        ("dmg", dmg(DISK)),
        ("dmg", dmg(DISK, fork=True)),
        ("dmg", dmg(DISK) + bytes(7)),
    ],
)
def test_good_ones(kind: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    header = vet(path, kind)
    assert (header.format, header.virtual_size) == (kind, len(DISK))
    assert header.problems == ()


BOCHS, CLOOP, DMG, PLAIN = bochs(DISK), cloop(DISK), dmg(DISK), dmg(DISK, kinds=(RAW,))
FORK = dmg(DISK, fork=True)
CASES: list[tuple[str, bytes, str]] = [
    ("bochs", _patched(BOCHS, 48, b"Undoable"), "bochs.unsupported"),
    ("bochs", _patched(BOCHS, 64, _little(0x30000)), "bochs.unsupported"),
    ("bochs", _patched(BOCHS, 80, _little(0)), "bochs.layout"),
    ("bochs", _patched(BOCHS, 80, _little(0x800001)), "bochs.layout"),
    ("bochs", _patched(BOCHS, 76, _little(1)), "bochs.layout"),
    ("bochs", _patched(BOCHS, 76, _little(0)), "bochs.layout"),
    ("bochs", _patched(BOCHS, 72, _little(1)), "bochs.size"),
    ("bochs", _patched(BOCHS, 72, _little(0xFFFFFFFF)), "bochs.size"),
    ("bochs", _patched(BOCHS, 88, b"\xff" * 8), "bochs.size"),
    ("bochs", BOCHS[:-1], "bochs.truncated"),
    ("bochs", _patched(BOCHS, 512, _little(77)), "bochs.truncated"),
    ("cloop", _patched(CLOOP, 128, _big(0)), "cloop.layout"),
    ("cloop", _patched(CLOOP, 128, _big(513)), "cloop.layout"),
    ("cloop", _patched(CLOOP, 128, _big(1 << 31)), "cloop.layout"),
    ("cloop", _patched(CLOOP, 132, _big(0xFFFFFFFF)), "cloop.unsupported"),
    ("cloop", _patched(CLOOP, 136, b"\xff" * 8), "cloop.table"),
    ("cloop", CLOOP[:-1], "cloop.truncated"),
    ("dmg", _patched(DMG, -512 + 0x18, b"\xff" * 8), "dmg.table"),
    ("dmg", _patched(DMG, -512 + 0xE0, bytes(8)), "dmg.table"),
    ("dmg", _patched(DMG, -512 + 0xE0, b"\xff" * 8), "dmg.table"),
    ("dmg", _patched(FORK, -512 + 0x30, _big(0) + _big(8)), "dmg.table"),
    ("dmg", FORK.replace(b"mish", b"\xff\xff\xff\xff"), "dmg.table"),
    ("dmg", _patched(DMG, -512 + 0x1EC, struct.pack(">Q", 1 << 40)), "dmg.table"),
    ("dmg", _patched(DMG, -512 + 0x1EC, struct.pack(">Q", 1)), "dmg.table"),
    ("dmg", DMG.replace(b"<data>\n", b"<data>\nA"), "dmg.table"),
    ("dmg", _patched(PLAIN, -512 + 0x18, struct.pack(">Q", 70_000)), "dmg.truncated"),
]


@pytest.mark.parametrize(("kind", "data", "code"), CASES, ids=range(len(CASES)))
def test_what_lies_is_never_opened(kind: str, data: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    fatal = vet(path, kind).fatal
    assert fatal is not None
    assert fatal.code == code


def test_a_raw_chunk_shorter_than_its_sectors(tmp_path: Path) -> None:
    """qemu would show what lies behind it in its own memory."""
    data = dmg(DISK, kinds=(RAW,), fork=True)
    whole = struct.pack(">QQ", 65536 // 512, 0) + struct.pack(">Q", 65536)
    assert data.count(whole) == 1
    path = tmp_path / "image"
    path.write_bytes(data.replace(whole, whole[:16] + struct.pack(">Q", 512)))
    fatal = vet(path, "dmg").fatal
    assert fatal is not None
    assert "not of its length" in fatal.message


def test_compressions(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(dmg(DISK, kinds=(BZIP2,)))
    header = vet(path, "dmg")
    assert (header.compression, header.fatal) == ("bzip2", None)
    mark = struct.pack(">IIQ", BZIP2, 0, 0)
    for kind, known in ((ADC, False), (LZFSE, True), (0x80000008, False), (77, False)):
        data = dmg(DISK, kinds=(BZIP2,), fork=True)
        path.write_bytes(data.replace(mark, struct.pack(">IIQ", kind, 0, 0)))
        fatal = vet(path, "dmg").fatal
        assert (fatal is None) == known
        assert known or fatal is None or fatal.code == "dmg.compression"


@pytest.mark.parametrize("kind", ["bochs", "cloop", "dmg"])
def test_no_header_at_all(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"#!/bin/sh\n".ljust(4096, b"\0"))
    with pytest.raises(ImageError, match="not a"):
        vet(path, kind)
    path.write_bytes({"bochs": BOCHS, "cloop": CLOOP, "dmg": DMG}[kind][:100])
    with pytest.raises((ImageTruncatedError, ImageError)):
        vet(path, kind)


def test_what_a_header_alone_says(tmp_path: Path) -> None:
    for name, data, kind in (
        ("a", BOCHS, "bochs"),
        ("b", CLOOP, "cloop"),
        ("c.dmg", DMG, "dmg"),
        ("d.img", DMG, "raw"),
        ("e.raw", BOCHS, "raw"),
    ):
        (tmp_path / name).write_bytes(data)
        assert vet(tmp_path / name).format == kind
