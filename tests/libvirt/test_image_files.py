"""Image files that domains of libvirt use, changed by the verbs for image files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, make, write
from tests.direct.image.disks import qemu_img
from tests.libvirt.conftest import Define, virsh

pytestmark = pytest.mark.libvirt


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(make(tmp_path / "base.qcow2", 16 * MIB), (1, 0, MIB))


def over(base: Path, folder: str) -> Path:
    path = base.parent / folder / "disk.qcow2"
    path.parent.mkdir()
    make(path, 16 * MIB, backing=str(base), image_format="qcow2")
    return write(path, (2, 0, MIB))


def test_trap_8_a_commit_is_refused_where_another_domain_rests_on_the_base(
    base: Path, define: Define
) -> None:
    mine, theirs = over(base, "mine"), over(base, "theirs")
    define("imgtools-commit-mine", mine)
    domain = define("imgtools-commit-theirs", theirs)
    before = base.read_bytes()
    refused = imgtools("image", "commit", mine)
    assert refused.code == 8
    assert f"domain {domain.name}" in refused.stderr
    assert "imgtools-commit-mine" not in refused.stderr
    assert base.read_bytes() == before
    virsh("undefine", domain.name)
    assert imgtools("image", "commit", mine).code == 0


def test_a_running_domain_is_named(base: Path, define: Define) -> None:
    disk = over(base, "mine")
    domain = define("imgtools-rebase-running", disk)
    domain.start_paused()
    for words in (["rebase", "--flatten", disk], ["image", "commit", disk]):
        refused = imgtools(*words)
        assert refused.code == 8
        assert domain.name in refused.stderr


def test_no_going_back_under_a_saved_domain(base: Path, define: Define) -> None:
    qemu_img("snapshot", "-c", "first", base)
    domain = define("imgtools-snapshot-saved", base)
    domain.start_paused()
    virsh("managedsave", domain.name)
    try:
        refused = imgtools("snapshot", "apply", base, "first")
        assert refused.code == 8
        assert "managedsave-remove" in refused.stderr
    finally:
        virsh("managedsave-remove", domain.name)
    assert imgtools("snapshot", "apply", base, "first").code == 0
