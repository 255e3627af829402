"""The disk of the tests of convert, in several formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.direct.image.disks import FORMATS, make_disk, qemu_img


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def sources(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same disk in every format that needs no key, made by qemu-img."""
    folder = tmp_path_factory.mktemp("sources")
    made = {}
    for name in FORMATS:
        made[name] = folder / f"{name}.disk"
        exact = ["-o", "force_size=on"] if name == "vpc" else []
        qemu_img("convert", "-f", "raw", "-O", name, *exact, disk, made[name])
    return made


@pytest.fixture
def qcow2(disk: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, path)
    return path
