"""``imgtools image commit``: the overlay's content goes into the base, and nobody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, backing, check, dirty, guest, make, raw, result, write
from tests.direct.image.crashes import KILLS, here, kill_loop
from tests.direct.image.disks import content, info, qemu_img

pytestmark = pytest.mark.direct

SIZE = 16 * MIB
COMMIT = ("image", "commit")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = make(tmp_path / "base.qcow2", SIZE)
    return write(path, (1, MIB, 4 * MIB))


@pytest.fixture
def overlay(tmp_path: Path, base: Path) -> Path:
    path = make(tmp_path / "overlay.qcow2", SIZE, backing=base.name, image_format="qcow2")
    return write(path, (9, 2 * MIB, MIB), (8, 12 * MIB, 4096))


def test_the_base_shows_what_the_overlay_showed_which_is_emptied(overlay: Path, base: Path) -> None:
    before, size = content(overlay), info(overlay)["actual-size"]
    found = result(*COMMIT, overlay)
    assert found["emptied"]
    assert content(base) == content(overlay) == before
    assert info(overlay)["actual-size"] < size
    assert backing(overlay) == ("base.qcow2", "qcow2")
    assert check(base) == check(overlay) == 0


@pytest.mark.parametrize("option", ["--keep", "-d"])
def test_the_overlay_can_be_kept(overlay: Path, base: Path, option: str) -> None:
    before, held = content(overlay), overlay.read_bytes()
    assert not result(*COMMIT, option, overlay)["emptied"]
    assert content(base) == before
    assert overlay.read_bytes() == held


@pytest.mark.parametrize("name", ["b:a,s=e.img", "\udcff.img", "a\nb.img"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    base = raw(tmp_path / name, SIZE, (1, MIB, MIB))
    overlay = make(tmp_path / "o.qcow2", SIZE, backing=str(base), image_format="raw")
    write(overlay, (2, 0, 3 * MIB))
    before = content(overlay)
    assert imgtools(*COMMIT, overlay).code == 0
    assert content(base, "raw") == before


def test_a_base_that_grows(tmp_path: Path) -> None:
    base = raw(tmp_path / "base.img", 4 * MIB, (1, MIB, MIB))
    overlay = make(tmp_path / "o.qcow2", SIZE, backing="base.img", image_format="raw")
    write(overlay, (2, 10 * MIB, MIB))
    before = content(overlay)
    assert result(*COMMIT, overlay)["grown_to"] == SIZE
    assert base.stat().st_size == SIZE
    assert content(base, "raw") == before


def test_trap_8_a_base_with_other_overlays_is_left_alone(
    tmp_path: Path, overlay: Path, base: Path
) -> None:
    other = make(tmp_path / "other.qcow2", SIZE, backing=str(base), image_format="qcow2")
    before = base.read_bytes(), content(other)
    refused = imgtools(*COMMIT, overlay)
    assert refused.code == 8
    assert str(other) in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (base.read_bytes(), content(other)) == before
    allowed = imgtools(*COMMIT, "--break-overlays", overlay)
    assert allowed.code == 0
    assert f"{other}: does not show what it did" in allowed.stderr
    assert content(other) != before[1]


def test_trap_8_also_where_the_overlays_lie_in_a_folder_of_their_own(
    tmp_path: Path, base: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / "vms").mkdir(exist_ok=True)
        path = tmp_path / "vms" / f"{name}.qcow2"
        make(path, SIZE, backing="../base.qcow2", image_format="qcow2")
    write(tmp_path / "vms" / "one.qcow2", (5, 0, MIB))
    refused = imgtools(*COMMIT, tmp_path / "vms" / "one.qcow2")
    assert refused.code == 8
    assert "two.qcow2" in refused.stderr


def test_trap_8_the_images_in_between(tmp_path: Path, overlay: Path, base: Path) -> None:
    top = make(tmp_path / "top.qcow2", SIZE, backing="overlay.qcow2", image_format="qcow2")
    write(top, (7, 2 * MIB + 512, 65536), (6, 14 * MIB, MIB))
    other = make(tmp_path / "other.qcow2", SIZE, backing="overlay.qcow2", image_format="qcow2")
    before, middle, held = content(top), content(overlay), base.read_bytes()
    assert imgtools(*COMMIT, "-b", base, top).code == 8
    assert base.read_bytes() == held
    other.unlink()
    found = result(*COMMIT, "-b", base, top)
    assert found["stale"] == [str(overlay)]
    assert not found["emptied"]
    assert content(base) == content(top) == before
    assert content(overlay) != middle


def test_a_base_in_the_middle_of_a_chain_of_odd_names(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    names = ["../base.qcow2", "./m:1", "m2", "./m:3"]
    for number, name in enumerate(names[1:]):
        below = names[number]
        make(folder / name, SIZE, backing=below, image_format="qcow2")
        write(folder / name, (number + 3, (number + 1) * MIB + 4096, 2 * MIB))
    before, lowest = content(folder / "m:3"), base.read_bytes()
    monkeypatch.chdir(folder)
    assert imgtools(*COMMIT, "-b", "./m:1", "m:3").code == 0
    assert content(folder / "m:1") == content(folder / "m:3") == before
    assert base.read_bytes() == lowest


def test_a_short_image_in_the_middle_is_refused(tmp_path: Path, base: Path) -> None:
    make(tmp_path / "mid.qcow2", MIB, backing="base.qcow2", image_format="qcow2")
    top = make(tmp_path / "top.qcow2", SIZE, backing="mid.qcow2", image_format="qcow2")
    refused = imgtools(*COMMIT, "-b", base, top)
    assert refused.code == 8
    assert "one layer at a time" in refused.stderr


def test_snapshots_inside_would_break(overlay: Path, base: Path) -> None:
    qemu_img("snapshot", "-c", "one", overlay)
    before = base.read_bytes()
    refused = imgtools(*COMMIT, overlay)
    assert refused.code == 8
    assert "snapshot one" in refused.stderr
    assert base.read_bytes() == before


def test_images_in_use_are_refused(tmp_path: Path, overlay: Path, base: Path) -> None:
    before = base.read_bytes(), overlay.read_bytes()
    with guest(overlay):
        refused = imgtools(*COMMIT, overlay)
        assert refused.code == 8
        assert "qemu-system" in refused.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = make(elsewhere / "other.qcow2", SIZE, backing=str(base), image_format="qcow2")
    with guest(other):
        assert imgtools(*COMMIT, overlay).code == 8
    assert (base.read_bytes(), overlay.read_bytes()) == before


def test_dry_run_changes_nothing(overlay: Path, base: Path) -> None:
    before = base.read_bytes(), overlay.read_bytes()
    found = result(*COMMIT, "--dry-run", overlay)
    assert (found["done"], found["emptied"], found["base"]) == (False, False, str(base))
    assert (base.read_bytes(), overlay.read_bytes()) == before


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["base.qcow2"], 4, "rests on no other image"),
        (["nowhere.qcow2"], 4, "no such image file"),
        (["-b", "overlay.qcow2", "overlay.qcow2"], 2, "does not rest on it"),
        (["-b", "nowhere", "overlay.qcow2"], 2, "does not rest on it"),
    ],
)
def test_one_clear_line(
    words: list[str],
    code: int,
    complaint: str,
    tmp_path: Path,
    overlay: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = overlay.read_bytes()
    monkeypatch.chdir(tmp_path)
    done = imgtools(*COMMIT, *words)
    assert done.code == code
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert overlay.read_bytes() == before


def test_a_base_without_space_is_not_begun(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8M", "none", str(room)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount")
    try:
        base = raw(room / "base.img", SIZE)
        overlay = make(tmp_path / "o.qcow2", SIZE, backing=str(base), image_format="raw")
        write(overlay, (1, 0, 12 * MIB))
        before = base.read_bytes()
        refused = imgtools(*COMMIT, overlay)
        assert refused.code == 8
        assert "may grow by 12 MiB" in refused.stderr
        assert base.read_bytes() == before
    finally:
        subprocess.run(["umount", str(room)], check=True)


def test_killed_anywhere_the_overlay_shows_the_same_and_it_can_be_finished(tmp_path: Path) -> None:
    size = 8 * MIB
    base = write(make(tmp_path / "base.qcow2", size), (1, MIB, 2 * MIB))
    overlay = make(tmp_path / "o.qcow2", size, backing=base.name, image_format="qcow2")
    write(overlay, (9, 2 * MIB, 3 * MIB), *((8, at * 65536, 4096) for at in range(90, 120, 2)))
    before, old = content(overlay), content(base)
    words: list[str | Path] = [*COMMIT, overlay]

    def look() -> str:
        assert content(overlay) == before
        seen = content(base)
        check(base)
        if not dirty(overlay):  # qemu says so while it empties an image, and mends it by itself
            check(overlay)
        assert here(*words) == 0
        assert content(base) == content(overlay) == before
        assert check(overlay) == check(base) == 0
        return {old: "old", before: "new"}.get(seen, "half-way")

    outcomes = kill_loop(words, [overlay, base], look)
    assert outcomes["killed"] >= KILLS, outcomes
    assert outcomes["half-way"], outcomes
