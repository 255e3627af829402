"""Disks of their own for the tests that change one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance.scratch import copy_of


@pytest.fixture
def disk(image: Callable[[str], Path], tmp_path: Path) -> Path:
    """A raw disk with an MBR and one ext4."""
    (tmp_path / "disks").mkdir()
    return copy_of(image("changing"), tmp_path / "disks/disk.img")
