"""Real headers with one field changed: what must be refused or said, and as which error."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.errors import EncryptedError, ImageError, ImageUnsupportedError
from imgtools.image.chain import resolve_disk
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest

pytestmark = pytest.mark.direct

PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")  # VHDX "file parameters"


def make(path: Path, image_format: str) -> Path:
    argv = ["qemu-img", "create", "-q", "-f", image_format, str(path), "8M"]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def resolve(path: Path) -> None:
    resolve_disk(DiskRequest(path=path), untrusted=True)


def differencing_vdi(path: Path) -> None:
    patch(path, 76, struct.pack("<I", 4))


def linked_vdi(path: Path) -> None:
    patch(path, 440, bytes(range(16)))


def differencing_vhd(path: Path) -> None:
    footer = bytearray(path.read_bytes()[:512])
    footer[60:64] = struct.pack(">I", 4)
    footer[64:68] = bytes(4)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    patch(path, 0, bytes(footer))


def differencing_vhdx(path: Path) -> None:
    """Set the "has parent" bit of the file parameters, wherever the metadata table has them."""
    content = path.read_bytes()
    table = content.index(b"metadata")
    entry = content.index(PARAMETERS, table)
    (offset,) = struct.unpack("<I", content[entry + 16 : entry + 20])
    patch(path, table + offset + 4, struct.pack("<I", 2))


def unknown_qed_feature(path: Path) -> None:
    patch(path, 16, struct.pack("<Q", 1 << 9))


UNSUPPORTED: list[tuple[str, Callable[[Path], None]]] = [
    ("vdi", differencing_vdi),
    ("vdi", linked_vdi),
    ("vpc", differencing_vhd),
    ("vhdx", differencing_vhdx),
    ("qed", unknown_qed_feature),
]


@pytest.mark.parametrize(
    ("image_format", "change"), UNSUPPORTED, ids=[change.__name__ for _, change in UNSUPPORTED]
)
def test_unsupported(tmp_path: Path, image_format: str, change: Callable[[Path], None]) -> None:
    """qemu reads some of these as if the parent were zeros."""
    path = make(tmp_path / "image", image_format)
    resolve(path)
    change(path)
    with pytest.raises(ImageUnsupportedError):
        resolve(path)


def test_a_vhdx_whose_log_must_be_replayed(tmp_path: Path) -> None:
    path = make(tmp_path / "image", "vhdx")
    content = path.read_bytes()
    guid = bytes(range(1, 17))
    for header in (64 << 10, 128 << 10):
        patch(path, header + 48, guid)
    (log,) = struct.unpack("<Q", content[(64 << 10) + 72 : (64 << 10) + 80])
    assert not vet(path).dirty
    patch(path, log, b"loge" + bytes(28) + guid)
    assert vet(path).dirty
    with pytest.raises(ImageError, match="log holds writes"):
        resolve(path)


@pytest.mark.parametrize(
    ("image_format", "offset", "data"),
    [
        ("qcow2", 79, b"\x01"),
        ("qed", 16, b"\x02"),
        ("parallels", 44, struct.pack("<I", 0x746F6E59)),
        ("vmdk", 72, b"\x01"),
    ],
)
def test_dirty_is_said_and_opened(
    tmp_path: Path, image_format: str, offset: int, data: bytes
) -> None:
    path = make(tmp_path / "image", image_format)
    assert not vet(path).dirty
    patch(path, offset, data)
    assert vet(path).dirty
    resolve(path)


@pytest.mark.parametrize(("image_format", "offset"), [("qcow2", 35), ("qcow", 39)])
def test_an_encrypted_image(tmp_path: Path, image_format: str, offset: int) -> None:
    path = make(tmp_path / "image", image_format)
    patch(path, offset, b"\x01")
    assert vet(path).encryption == "aes"
    with pytest.raises(EncryptedError):
        resolve(path)


def test_two_sizes_of_a_vhd(tmp_path: Path) -> None:
    """Virtual PC's images have the size of their geometry, Hyper-V's that of the size field."""
    path = make(tmp_path / "image", "vpc")
    by_geometry = vet(path).virtual_size
    patch(path, 28, b"win ")
    patch(path, 48, struct.pack(">Q", 7 << 20))
    assert vet(path).virtual_size == 7 << 20 != by_geometry


def test_a_wrong_checksum_is_said(tmp_path: Path) -> None:
    path = make(tmp_path / "image", "vpc")
    patch(path, 70, b"x")
    assert [problem.code for problem in vet(path).problems] == ["vhd.checksum"]
