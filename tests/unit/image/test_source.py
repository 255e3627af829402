"""What is no image file at all: each its own error, and nothing ever blocks."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtools.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTruncatedError,
    ImageUnreadableError,
)
from imgtools.image.source import open_source
from imgtools.image.vet import vet

pytestmark = pytest.mark.unit


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match=r"gone\.img: no such"):
        vet(tmp_path / "gone.img")


def test_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageNotFoundError):
        vet(tmp_path / "file" / "image")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadableError, match="a directory"):
        vet(tmp_path)


def test_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageUnreadableError, match="a FIFO"):
        vet(tmp_path / "pipe")


def test_character_device() -> None:
    with pytest.raises(ImageUnreadableError, match="a character device"):
        vet(Path("/dev/zero"))


def test_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "s"))
        with pytest.raises(ImageUnreadableError, match="socket"):
            vet(tmp_path / "s")


def test_symbolic_link_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ImageUnreadableError, match="cannot open"):
        vet(tmp_path / "loop")


def test_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        vet(tmp_path / ("x" * 5000))


def test_name_with_a_nul() -> None:
    with pytest.raises(ImageNotFoundError):
        vet(Path("a\0b"))


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.img").touch()
    with pytest.raises(ImageTruncatedError, match=r"empty \(0 bytes\)"):
        vet(tmp_path / "empty.img")


@pytest.fixture
def private_image() -> Iterator[Path]:
    """An image that the effective user may not read (also when the tests run as root)."""
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "private.img"
        path.write_bytes(bytes(512))
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(user)


def test_unreadable(private_image: Path) -> None:
    with pytest.raises(ImageUnreadableError, match="permission denied"):
        vet(private_image)


def test_reads_stay_inside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * 100)
    with open_source(path) as source:
        assert source.peek(90, 20) == b"x" * 10
        assert source.peek(100, 1) == source.peek(1 << 62, 10) == source.peek(-5, 10) == b""
        with pytest.raises(ImageTruncatedError, match="ends before the table"):
            source.read(90, 20, "the table")


def test_a_table_of_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with open_source(path) as source, pytest.raises(ImageError, match="beyond any sane size"):
        source.peek(0, 1 << 39)
