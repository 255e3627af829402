"""LVM's text, and headers that lie."""

from __future__ import annotations

import struct

import pytest

from imgtools.direct.lvm_metadata import lvm_crc, parse_text, read_pv
from imgtools.direct.streams import BlockStream
from imgtools.errors import DamagedError

pytestmark = pytest.mark.unit

TEXT = """vg {
id = "a-b"
seqno = 1
status = ["RESIZEABLE", "READ"] # a comment
empty = []
pv0 { # "quoted" comment
device = "a \\"quoted\\" # name"
pe_start = 2048
ratio = 1.5
list = [
  "pv0", 0,
  "pv1", 7
]
}
}
contents = "Text Format Volume Group"
"""


class Memory(BlockStream):
    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def test_text_becomes_nested_sections() -> None:
    parsed = parse_text(TEXT, "x")
    assert parsed["vg"]["status"] == ["RESIZEABLE", "READ"]
    assert parsed["vg"]["empty"] == []
    pv = parsed["vg"]["pv0"]
    assert pv["device"] == 'a "quoted" # name'
    assert (pv["pe_start"], pv["ratio"], pv["list"]) == (2048, 1.5, ["pv0", 0, "pv1", 7])
    assert parsed["contents"] == "Text Format Volume Group"


@pytest.mark.parametrize(
    "text",
    ["a {", "}", "a = ", "a = [1, 2", "a b", '"x" = 1', "a = }", "a { " * 50, "a = \x01", "= 1"],
)
def test_garbled_text_is_damage(text: str) -> None:
    with pytest.raises(DamagedError):
        parse_text(text, "x")


def label(*, data: bytes = b"", offset: int = 32, sector: int = 1) -> bytes:
    body = struct.pack("<I8s", offset, b"LVM2 001") + b"A" * 32 + struct.pack("<Q", 1 << 30) + data
    body = body.ljust(492, b"\0")
    return struct.pack("<8sQI", b"LABELONE", sector, lvm_crc(body)) + body


def test_a_volume_without_metadata_is_an_orphan() -> None:
    found = read_pv(Memory(bytes(512) + label()), "x")
    assert (found.uuid, found.device_size, found.texts) == ("A" * 32, 1 << 30, ())


@pytest.mark.parametrize(
    "disk",
    [
        bytes(4096),
        bytes(512) + label(sector=2),
        bytes(512) + label(offset=500),
        bytes(512) + label(data=b"\1" * 440),  # a list that never ends
        bytes(512) + label()[:-1] + b"\1",
        bytes(512) + label(data=struct.pack("<QQQQ", 0, 0, 1 << 60, 1 << 20)),
    ],
)
def test_a_header_that_lies_is_damage(disk: bytes) -> None:
    with pytest.raises(DamagedError):
        read_pv(Memory(disk), "x")
