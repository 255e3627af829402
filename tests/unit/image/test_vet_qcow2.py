"""qcow2 headers that lie, one field at a time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.errors import ImageError, ImageTruncatedError
from imgtools.image.header import ImageHeader
from imgtools.image.vet import vet

pytestmark = pytest.mark.unit

Build = Callable[..., Path]
CLUSTER = 1 << 16


def fatal_code(header: ImageHeader) -> str:
    assert header.fatal is not None
    return header.fatal.code


def test_a_good_header(qcow2: Build) -> None:
    header = vet(qcow2())
    assert (header.format, header.version, header.virtual_size) == ("qcow2", 3, 1 << 20)
    assert header.cluster_size == CLUSTER
    assert header.problems == ()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"l1_offset": 1 << 40}, "qcow2.l1-beyond"),
        ({"l1_offset": 3 * CLUSTER + 8}, "qcow2.l1-offset"),
        ({"l1_offset": (1 << 64) - CLUSTER}, "qcow2.l1-beyond"),
        ({"l1_entries": 0xFFFFFFFF}, "qcow2.l1-size"),
        ({"size": 1 << 40}, "qcow2.l1-size"),
        ({"size": 1 << 62}, "qcow2.size"),
        ({"size": (1 << 64) - 1}, "qcow2.size"),
        ({"reftable_offset": 1 << 50}, "qcow2.refcount"),
        ({"reftable_clusters": 0xFFFFFFFF}, "qcow2.refcount"),
        ({"refcount_order": 7}, "qcow2.refcount"),
        ({"incompatible": 1 << 40}, "qcow2.feature"),
        ({"crypt": 3}, "qcow2.crypt"),
        ({"compression": 9}, "qcow2.compression"),
        ({"incompatible": 4}, "qcow2.data-file"),
        ({"backing": b"x" * 10, "backing_length": 1 << 31}, "qcow2.backing"),
        ({"backing": b"x" * 10, "backing_length": 1024}, "qcow2.backing"),
    ],
)
def test_fatal(qcow2: Build, fields: dict[str, object], code: str) -> None:
    assert fatal_code(vet(qcow2(**fields))) == code


@pytest.mark.parametrize(
    "fields",
    [
        {"cluster_bits": 63},
        {"cluster_bits": 8},
        {"version": 4},
        {"header_length": 100},
        {"header_length": 0xFFFFFFFF},
    ],
)
def test_no_header_to_speak_of(qcow2: Build, fields: dict[str, object]) -> None:
    with pytest.raises(ImageError):
        vet(qcow2(**fields))


@pytest.mark.parametrize("length", [1, 4, 71, 72, 103])
def test_cut_inside_the_header(qcow2: Build, length: int) -> None:
    with pytest.raises(ImageTruncatedError):
        vet(qcow2(file_size=length), "qcow2")


def test_dirty_and_corrupt_are_said(qcow2: Build) -> None:
    header = vet(qcow2(incompatible=3))
    assert header.dirty
    assert header.fatal is None
    assert [problem.code for problem in header.problems] == ["qcow2.dirty", "qcow2.corrupt"]
    assert header.features == ("dirty", "corrupt")


def test_references_are_kept_as_stored(
    qcow2: Build, header_extension: Callable[..., bytes]
) -> None:
    extensions = header_extension(0xE2792ACA, b"raw") + header_extension(0x44415441, b"d\xff.raw")
    header = vet(qcow2(backing=b"a\nb\xff,=:", extensions=extensions, incompatible=4, autoclear=2))
    assert header.backing_file == b"a\nb\xff,=:"
    assert header.backing_format == "raw"
    assert header.data_file == b"d\xff.raw"
    assert header.data_file_raw


def test_a_data_file_without_its_bit_is_no_reference(
    qcow2: Build, header_extension: Callable[..., bytes]
) -> None:
    assert vet(qcow2(extensions=header_extension(0x44415441, b"/etc/shadow"))).data_file is None


def test_an_extension_length_that_lies(
    qcow2: Build, header_extension: Callable[..., bytes]
) -> None:
    lie = header_extension(0xE2792ACA, b"raw", length=0xFFFFFFF0)
    assert fatal_code(vet(qcow2(extensions=lie))) == "qcow2.extension"


def test_two_backing_formats(qcow2: Build, header_extension: Callable[..., bytes]) -> None:
    """qemu takes the last, another reader the first: what is vetted must be what is opened."""
    twice = header_extension(0xE2792ACA, b"qcow2") + header_extension(0xE2792ACA, b"raw")
    assert fatal_code(vet(qcow2(backing=b"b", extensions=twice))) == "qcow2.extension"


def test_extensions_without_end(qcow2: Build, header_extension: Callable[..., bytes]) -> None:
    many = b"".join(header_extension(0x1000 + number, b"") for number in range(200))
    assert fatal_code(vet(qcow2(extensions=many))) == "qcow2.extension"


def _snapshot(identity: bytes, name: bytes, *, extra: bytes = b"", extra_length: int = -1) -> bytes:
    length = len(extra) if extra_length < 0 else extra_length
    head = struct.pack(">QIHHIIQII", 0, 0, len(identity), len(name), 1700000000, 0, 0, 7, length)
    entry = head + extra + identity + name
    return entry + bytes(-len(entry) % 8)


def _with_table(path: Path, table: bytes) -> Path:
    with path.open("r+b") as stream:
        stream.seek(4 * CLUSTER)
        stream.write(table)
    return path


def test_snapshots(qcow2: Build) -> None:
    table = _snapshot(b"1", b"first", extra=struct.pack(">QQ", 1 << 33, 4096))
    table += _snapshot(b"2", "zwölf\n".encode())
    path = qcow2(snapshots=2, snapshots_offset=4 * CLUSTER, file_size=5 * CLUSTER)
    first, second = vet(_with_table(path, table)).snapshots
    assert (first.id, first.name, first.vm_state_size, first.virtual_size) == (
        "1",
        "first",
        1 << 33,
        4096,
    )
    assert (second.name, second.vm_state_size, second.virtual_size) == ("zwölf\n", 7, None)
    assert second.date_seconds == 1700000000


@pytest.mark.parametrize(
    ("count", "table"),
    [
        (0xFFFFFFFF, b""),
        (65536, b""),
        (65536, _snapshot(b"x" * 60000, b"y" * 60000) * 2),
        (2, _snapshot(b"1", b"n", extra_length=0xFFFFFFFF)),
        (3, b"\xff" * 100),
    ],
)
def test_snapshot_tables_that_lie(qcow2: Build, count: int, table: bytes) -> None:
    path = qcow2(snapshots=count, snapshots_offset=4 * CLUSTER, file_size=9 * CLUSTER)
    header = vet(_with_table(path, table))
    assert "qcow2.snapshots" in {problem.code for problem in header.problems}


@pytest.mark.parametrize("clusters", [4, 5])
def test_data_beyond_the_end(qcow2: Build, clusters: int) -> None:
    """L1 -> L2 -> a data cluster that the reference counts know and the file lacks."""
    path = qcow2(l1_offset=3 * CLUSTER, file_size=6 * CLUSTER)
    image = bytearray(path.read_bytes())
    struct.pack_into(">Q", image, CLUSTER, 2 * CLUSTER)
    struct.pack_into(">6H", image, 2 * CLUSTER, *[1] * 6)
    struct.pack_into(">Q", image, 3 * CLUSTER, 1 << 63 | 4 * CLUSTER)
    struct.pack_into(">Q", image, 4 * CLUSTER, 1 << 63 | 5 * CLUSTER)
    path.write_bytes(image)
    assert vet(path).problems == ()
    path.write_bytes(image[: clusters * CLUSTER])
    assert fatal_code(vet(path)) == "qcow2.truncated"
