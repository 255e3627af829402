"""Images that these tests make themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.direct.crafted import make_ext4, write_guest


@pytest.fixture(scope="session")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw ext4 image with troublesome files."""
    folder = tmp_path_factory.mktemp("crafted")
    (folder / "root").mkdir()
    write_guest(folder / "root")
    return make_ext4(folder / "root", folder / "crafted.img")
