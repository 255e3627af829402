"""``imgtools image resize``, killed at every point, and on a disk that runs full."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.crashes import said
from tests.direct.image.disks import leftovers, tmpfs
from tests.direct.image.gpt_disks import (
    MIB,
    as_qcow2,
    check_gpt,
    content,
    digest,
    flat,
    make_gpt,
    resize,
)
from tests.direct.image.killing import filled, finish, killed, records

pytestmark = pytest.mark.direct

CALLS_TO_GROW = 8  # create, four writes, check, resize, commit
CALLS_TO_SHRINK = 7  # create, three writes, check, commit, resize
POINTS = [
    *((16, 32, at, "before") for at in range(1, CALLS_TO_GROW + 1)),
    *((16, 32, at, "after") for at in range(6, CALLS_TO_GROW + 1)),
    *((16, 32, at, "during") for at in range(7, CALLS_TO_GROW + 1)),
    *((16, 8, at, "before") for at in range(2, CALLS_TO_SHRINK + 1, 2)),
    *((16, 8, at, when) for at in (6, 7) for when in ("during", "after")),
]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_that_runs_full_meanwhile(tmp_path: Path, kind: str) -> None:
    """Before the commit nothing has changed; in it, it is finished once there is space."""
    made = make_gpt(tmp_path / "made")
    partitions = content(made)
    pristine = made if kind == "raw" else as_qcow2(made)
    seen = set()
    with tmpfs(tmp_path / "small", "128m") as folder:
        image, fill = folder / "disk.img", folder / "fill"
        for at in (1, 4, 6, 7, CALLS_TO_GROW):
            shutil.copyfile(pristine, image)
            code, text = filled(tmp_path, at, fill, "resize", image, "32M")
            assert "Traceback" not in text
            assert text.count("\n") <= 1
            left = records(folder)
            committing = bool(left)
            if code == 0:  # there was room enough in the clusters and pages that it had
                assert not left
            elif committing:
                assert f"imgtools recover {image}" in text
            else:
                assert code == 8, (at, text)
                assert digest(image) == digest(pristine)
            seen.add((code == 0, committing))
            fill.unlink(missing_ok=True)
            finish(image)
            assert not leftovers(folder)
            plain = image if kind == "raw" else flat(image)
            grown = committing or code == 0
            assert plain.stat().st_size == (32 if grown else 16) * MIB, (at, text)
            if grown:
                check_gpt(plain)
            assert content(plain) == partitions
    assert (False, False) in seen
    assert (False, True) in seen


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_killed_anywhere_it_is_old_or_new(tmp_path: Path, kind: str) -> None:
    made = make_gpt(tmp_path / "made")
    partitions = content(made)
    pristine = made if kind == "raw" else as_qcow2(made)
    image = tmp_path / "disk.img"
    seen = set()
    for old, new, at, when in POINTS[:: 1 if kind == "raw" else 3]:
        shutil.copyfile(pristine, image)
        words = ["--shrink", image, f"{new}M"]
        assert killed(tmp_path, at, when, "resize", *words) == -9, (new, at, when)
        committing = any(
            '"committing"' in (tmp_path / name).read_text() for name in records(tmp_path)
        )
        seen.add(committing)
        if not committing:
            assert digest(image) == digest(pristine)
        finish(image)
        assert not leftovers(tmp_path)
        plain = image if kind == "raw" else flat(image)
        assert plain.stat().st_size == (new if committing else old) * MIB, (new, at, when)
        check_gpt(plain)
        assert content(plain) == partitions
        if not committing:
            assert said("image", "resize", *words)[0] == 0
            plain = image if kind == "raw" else flat(image)
            assert plain.stat().st_size == new * MIB
            check_gpt(plain)
            assert content(plain) == partitions
    assert seen == {False, True}


def test_what_was_cut_short_is_converted_whole_and_never_replaced(tmp_path: Path) -> None:
    disk, other = make_gpt(tmp_path / "disk.img"), make_gpt(tmp_path / "other.img")
    assert killed(tmp_path, CALLS_TO_GROW, "before", "resize", disk, "32M") == -9
    before = digest(disk)
    for words in (("--force", other, disk), ("-l", "one", disk, tmp_path / "no")):
        done = imgtools("convert", "-O", "raw", *words)
        assert done.code == 8
        assert f"imgtools recover {disk}" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "no").exists()
    done = imgtools("convert", "-O", "raw", disk, tmp_path / "new")
    assert done.code == 0
    assert f"imgtools recover {disk}" in done.stderr
    assert digest(disk) == before
    assert imgtools("recover", disk).code == 0
    assert digest(tmp_path / "new") == digest(disk) != before
    check_gpt(disk)


def test_what_was_cut_short_is_read_with_its_new_size(tmp_path: Path) -> None:
    disk = make_gpt(tmp_path / "disk.img")
    assert killed(tmp_path, CALLS_TO_GROW, "before", "resize", disk, "32M") == -9
    (device,) = json.loads(imgtools("filesystems", "--blkdevs", "--json", disk).stdout)["result"]
    assert device["size"] == 32 * MIB
    assert resize(disk, "40M").code == 0  # finishes it first
    assert disk.stat().st_size == 40 * MIB
    check_gpt(disk)
