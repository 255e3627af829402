"""cat against virt-cat: the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.oracle import virt

pytestmark = pytest.mark.appliance

FILES = ["/etc/os-release", "/etc/passwd", "/bin/bash"]


@pytest.mark.parametrize("engine", ["direct", "appliance"])
def test_text_and_binary_and_links(engine: str, image: Callable[[str], Path]) -> None:
    disk = image("debian-lvm")
    result = imgtools("cat", "--engine", engine, "-a", disk, *FILES)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == virt("virt-cat", "-a", disk, *FILES)
