"""Images that these tests make themselves."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from imgtools.direct.engine import DirectEngine
from imgtools.errors import DamagedError
from imgtools.guest import opening
from imgtools.guest.tree import GuestTree
from tests.direct.crafted import make_ext4, write_guest


@pytest.fixture(scope="session")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw ext4 image with troublesome files."""
    folder = tmp_path_factory.mktemp("crafted")
    (folder / "root").mkdir()
    write_guest(folder / "root")
    return make_ext4(folder / "root", folder / "crafted.img")


@pytest.fixture
def damaged_half_way(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """/binary fails in the middle on the first engine; grows by one for every engine opened.

    The second engine is the first one without its fault: no real one fails on demand.
    """
    original = GuestTree.open
    runs: list[object] = []

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 700_000:
                raise DamagedError("a block is bad")
            return super().read(min(size or 0, 100_000))

    def faulty(self: GuestTree, path: bytes) -> object:
        stream = original(self, path)
        return Failing(stream.read()) if len(runs) == 1 and path == b"/binary" else stream

    def opened(*args: object) -> DirectEngine:
        runs.append(args)
        return DirectEngine(*args[:2])  # type: ignore[arg-type]

    monkeypatch.setattr(GuestTree, "open", faulty)
    monkeypatch.setattr(opening, "_open_direct", opened)
    monkeypatch.setattr(opening, "_open_appliance", opened)
    return runs
