"""Image files that domains of libvirt use, changed by the verbs for image files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, make, write
from tests.direct.image.crashes import said
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


def test_every_verb_refuses_what_a_running_domain_uses(
    base: Path, define: Define, tmp_path: Path
) -> None:
    disk, data = over(base, "mine"), tmp_path / "data"
    qemu_img("snapshot", "-c", "first", disk)
    qemu_img("bitmap", "--add", "-f", "qcow2", disk, "marks")
    data.write_bytes(bytes(512))
    other = make(tmp_path / "other.qcow2", 16 * MIB)
    domain = define("imgtools-image-running", disk)
    domain.start_paused()
    before, other_before = disk.read_bytes(), other.read_bytes()
    verbs: list[list[str | Path]] = [
        ["image", "resize", disk, "+1M"],
        ["image", "resize", "--shrink", disk, "-1M"],
        ["convert", "--force", "-O", "qcow2", other, disk],
        ["convert", "-n", "--force", "-O", "qcow2", other, disk],
        ["convert", "-O", "qcow2", disk, tmp_path / "copy.qcow2"],
        ["image", "create", "--force", disk, "16M"],
        ["rebase", "--flatten", disk],
        ["rebase", "-u", "-b", base, disk],
        ["image", "commit", disk],
        ["snapshot", "create", disk, "second"],
        ["snapshot", "apply", disk, "first"],
        ["snapshot", "delete", disk, "first"],
        ["image", "bitmap", "add", disk, "more"],
        ["image", "bitmap", "remove", disk, "marks"],
        ["image", "amend", "-o", "lazy_refcounts=on", disk],
        ["image", "write", "--from", data, disk, "0"],
        ["image", "check", disk],
        ["image", "check", "-r", "all", disk],
        ["image", "read", "--force", "-o", disk, other, "0", "512"],
    ]
    for words in verbs:
        code, text = said(*words)
        assert code == 8, words
        assert text.count("\n") == 1, text
        # What only reads asks qemu's locks, which know the process and not the domain.
        assert domain.name in text or "qemu-system" in text, words
    assert (disk.read_bytes(), other.read_bytes()) == (before, other_before)
    assert {path.name for path in disk.parent.iterdir()} == {disk.name, f"{domain.name}.xml"}
    # Below a running guest nothing is written either.
    for words in (["image", "resize", base, "+1M"], ["rebase", "--flatten", base]):
        assert imgtools(*words).code == 8
    virsh("destroy", domain.name)
    assert imgtools("image", "resize", disk, "+1M").code == 0


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
