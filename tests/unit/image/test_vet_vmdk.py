"""VMDK descriptors and sparse headers that lie."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from imgtools.errors import ImageError
from imgtools.image.vet import vet

pytestmark = pytest.mark.unit

HEAD = b"# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
FLAT = b'createType="monolithicFlat"\nRW 2048 FLAT "disk-flat.vmdk" 0\n'


def descriptor(tmp_path: Path, text: bytes) -> Path:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(text)
    return path


def sparse(
    tmp_path: Path,
    *,
    capacity: int = 2048,
    directory: int = 21,
    place: int = 1,
    length: int = 20,
    text: bytes = HEAD,
    at: int = 512,
) -> Path:
    head = struct.pack(
        "<4sIIQQQQIQQQ?4sH", b"KDMV", 1, 3, capacity, 128, place, length, 512, 0, directory, 0,
        False, b"\n \r\n", 0,
    )  # fmt: skip
    image = bytearray(64 << 10)
    image[: len(head)] = head
    image[at : at + len(text)] = text
    path = tmp_path / "disk.vmdk"
    path.write_bytes(image)
    return path


def codes(path: Path) -> set[str]:
    return {problem.code for problem in vet(path).problems if problem.fatal}


def test_a_flat_descriptor(tmp_path: Path) -> None:
    header = vet(descriptor(tmp_path, HEAD + FLAT))
    assert (header.format, header.variant, header.virtual_size) == (
        "vmdk",
        "monolithicFlat",
        1 << 20,
    )
    assert header.extents[0].file == b"disk-flat.vmdk"
    assert header.problems == ()


def test_megabytes_of_newlines(tmp_path: Path) -> None:
    assert codes(descriptor(tmp_path, HEAD + b"\n" * (8 << 20))) == {"vmdk.descriptor"}


def test_a_long_line(tmp_path: Path) -> None:
    assert codes(descriptor(tmp_path, HEAD + b"RW " + b"9" * 900_000 + b"\n" + FLAT)) == {
        "vmdk.extent"
    }


def test_no_extent(tmp_path: Path) -> None:
    assert codes(descriptor(tmp_path, HEAD)) == {"vmdk.extent"}


@pytest.mark.parametrize(
    "line",
    [
        b'RW\n2048 FLAT "/etc/shadow" 0\n',
        b'RW 2048 FLAT\n"/etc/shadow" 0\n',
        b'RW -1 FLAT "x" 0\n',
        b'RW 2048 FLAT "x\n',
        b"RW 2048 FLAT\n",
        b'\x0bRW 2048 DEVICE "/dev/sda" 0\n',
    ],
)
def test_extent_lines_that_readers_take_differently(tmp_path: Path, line: bytes) -> None:
    """C's scanf skips newlines; a line that it could complete from the next one is refused."""
    assert codes(descriptor(tmp_path, HEAD + FLAT + line)) & {"vmdk.extent", "vmdk.unsupported"}


@pytest.mark.parametrize("line", [b"RW 2048 ZERO\n", b'RDONLY 2048 FLAT "x.vmdk" 0\n'])
def test_extents_that_qemu_leaves_out(tmp_path: Path, line: bytes) -> None:
    assert codes(descriptor(tmp_path, HEAD + line + FLAT)) == {"vmdk.unsupported"}


def test_a_parent_named_in_a_comment_counts(tmp_path: Path) -> None:
    header = vet(descriptor(tmp_path, HEAD + b'# parentFileNameHint="/etc/shadow"\n' + FLAT))
    assert header.backing_file == b"/etc/shadow"
    assert header.backing_format == "vmdk"


@pytest.mark.parametrize(
    "line",
    [
        b"parentFileNameHint=",
        b'parentFileNameHint = "a"\n',
        b'parentFileNameHint="a"\nparentFileNameHint="b"\n',
        b'parentFileNameHint="' + b"x" * 2000 + b'"\n',
    ],
)
def test_senseless_parents(tmp_path: Path, line: bytes) -> None:
    assert codes(descriptor(tmp_path, HEAD + FLAT + line)) == {"vmdk.parent"}


def test_a_sparse_extent(tmp_path: Path) -> None:
    header = vet(sparse(tmp_path))
    assert (header.variant, header.virtual_size, header.cluster_size) == (
        "monolithicSparse",
        1 << 20,
        1 << 16,
    )
    assert header.problems == ()


def test_a_parent_only_where_qemu_looks(tmp_path: Path) -> None:
    hint = HEAD + b'parentFileNameHint="/etc/shadow"\n'
    assert codes(sparse(tmp_path, text=hint, place=50)) == {"vmdk.parent"}
    assert codes(sparse(tmp_path, text=hint, place=0)) == {"vmdk.parent"}


def test_a_sparse_header_without_size_is_its_descriptor(tmp_path: Path) -> None:
    header = vet(sparse(tmp_path, capacity=0, text=HEAD + FLAT))
    assert [extent.file for extent in header.extents] == [b"disk-flat.vmdk"]


def test_tables_beyond_the_end(tmp_path: Path) -> None:
    assert codes(sparse(tmp_path, directory=1 << 40)) == {"vmdk.truncated"}
    assert codes(sparse(tmp_path, capacity=1 << 53)) == {"vmdk.size"}


def test_a_footer_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no header at byte"):
        vet(sparse(tmp_path, directory=(1 << 64) - 1))
