"""``imgtools snapshot``: internal snapshots, and a way back from each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, check, guest, make, raw, result, write
from tests.direct.image.crashes import KILLS, here, kill_loop, said
from tests.direct.image.disks import content, info, qemu_img

pytestmark = pytest.mark.direct

SIZE = 16 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = write(make(tmp_path / "guest.qcow2", SIZE), (1, MIB, 4 * MIB))
    qemu_img("snapshot", "-c", "first", path)
    return write(path, (2, 3 * MIB, 4 * MIB))


def names(image: Path) -> list[str]:
    return [one["name"] for one in info(image).get("snapshots", [])]


def test_create_and_list(image: Path) -> None:
    made = result("snapshot", "create", image, "second one")["snapshot"]
    assert (made["id"], made["name"], made["virtual_size"]) == ("2", "second one", SIZE)
    listed = result("snapshot", "list", image)
    theirs = info(image)["snapshots"]
    assert [one["name"] for one in listed] == [one["name"] for one in theirs]
    assert [one["date_seconds"] for one in listed] == [one["date-sec"] for one in theirs]
    shown = imgtools("snapshot", "list", image).lines
    assert shown[0].split() == ["ID", "NAME", "DATE", "VM", "SIZE", "VIRTUAL", "SIZE"]
    assert "second one" in shown[2]
    assert imgtools("image", "snapshot", "list", image).lines == shown
    assert check(image) == 0


def test_list_while_the_guest_runs(image: Path) -> None:
    with guest(image):
        assert [one["name"] for one in result("snapshot", "list", image)] == ["first"]
        for words in (["create", image, "x"], ["apply", image, "first"]):
            refused = imgtools("snapshot", *words)
            assert refused.code == 8
            assert "qemu-system" in refused.stderr
    assert names(image) == ["first"]


@pytest.mark.parametrize(
    ("name", "code", "complaint"),
    [
        ("first", 8, "has a snapshot first already"),
        ("1", 2, "taken for an id"),
        ("", 2, "can be seen"),
        ("a\nb", 2, "can be seen"),
        ("x" * 256, 2, "at most 255"),
    ],
)
def test_names_that_are_refused(image: Path, name: str, code: int, complaint: str) -> None:
    before = image.read_bytes()
    done = imgtools("snapshot", "create", image, name)
    assert (done.code, done.stderr.count("\n")) == (code, 1)
    assert complaint in done.stderr
    assert image.read_bytes() == before


def test_apply_keeps_a_way_back_and_back_again(image: Path) -> None:
    present = content(image)
    done = result("snapshot", "apply", image, "first")
    went = content(image)
    assert went != present
    assert done["way_back"] in names(image)
    assert done["way_back"].startswith("before-first-")
    # The state is that of "first" still: no further way back is needed.
    again = result("snapshot", "apply", image, done["way_back"])
    assert again["way_back"] == "first"
    assert content(image) == present
    assert len(names(image)) == 2
    write(image, (5, 0, 512))
    assert result("snapshot", "apply", image, "1")["way_back"] not in (None, "first")
    assert content(image) == went
    assert check(image) == 0


def test_no_way_back(image: Path) -> None:
    assert result("snapshot", "apply", "--no-way-back", image, "first")["way_back"] is None
    assert names(image) == ["first"]


@pytest.mark.parametrize("size", [8 * MIB, 24 * MIB])
def test_apply_a_snapshot_of_another_size(image: Path, size: int) -> None:
    present = content(image)
    qemu_img("resize", "-q", "--shrink", "-f", "qcow2", image, size)
    resized = content(image)
    done = imgtools("snapshot", "apply", image, "first")
    assert done.code == 0
    assert f"has {SIZE} bytes now" in done.stderr
    assert info(image)["virtual-size"] == SIZE
    back = names(image)[-1]
    assert imgtools("snapshot", "apply", image, back).code == 0
    assert content(image) == resized != present
    assert check(image) == 0


def test_another_size_under_bitmaps_is_refused_before_anything_is_done(image: Path) -> None:
    qemu_img("resize", "-q", "-f", "qcow2", image, 24 * MIB)
    qemu_img("bitmap", "--add", "-f", "qcow2", image, "b0")
    before = image.read_bytes()
    refused = imgtools("snapshot", "apply", image, "first")
    assert refused.code == 8
    assert "bitmaps" in refused.stderr
    assert image.read_bytes() == before


def test_an_image_with_overlays_is_left_alone(tmp_path: Path, image: Path) -> None:
    overlay = make(tmp_path / "o.qcow2", SIZE, backing="guest.qcow2", image_format="qcow2")
    before = image.read_bytes()
    refused = imgtools("snapshot", "apply", image, "first")
    assert refused.code == 8
    assert str(overlay) in refused.stderr
    assert image.read_bytes() == before
    assert imgtools("snapshot", "apply", "--break-overlays", image, "first").code == 0


def test_snapshots_of_an_overlay(tmp_path: Path) -> None:
    raw(tmp_path / "base.img", SIZE, (1, MIB, 8 * MIB))
    overlay = make(tmp_path / "o.qcow2", SIZE, backing="base.img", image_format="raw")
    write(overlay, (2, 2 * MIB, MIB))
    first = content(overlay)
    assert imgtools("snapshot", "create", overlay, "a:b,c=d").code == 0
    write(overlay, (3, 0, 12 * MIB))
    assert imgtools("snapshot", "apply", overlay, "a:b,c=d").code == 0
    assert content(overlay) == first


def test_delete_by_name_or_id_and_never_the_wrong_one(image: Path) -> None:
    for name in ("two", "two", "1"):  # qemu-img itself refuses none of these
        qemu_img("snapshot", "-c", name, image)
    before = image.read_bytes()
    for name, what in (("two", "ids 2, 3"), ("1", "ids 1, 4"), ("3", "the name of 2 too")):
        refused = imgtools("snapshot", "delete", image, name)
        assert refused.code == 8
        assert what in refused.stderr
    assert imgtools("snapshot", "delete", image, "nothing").code == 4
    assert image.read_bytes() == before
    assert imgtools("snapshot", "delete", image, "2").code == 0
    assert [one["id"] for one in info(image)["snapshots"]] == ["1", "3", "4"]
    present = content(image)
    assert imgtools("snapshot", "delete", image, "first").code == 0
    assert names(image) == ["two", "1"]
    assert content(image) == present
    assert check(image) == 0


def test_other_formats(tmp_path: Path) -> None:
    image = raw(tmp_path / "disk.img", MIB)
    assert result("snapshot", "list", image) == []
    for words in (["create", image, "x"], ["apply", image, "x"], ["delete", image, "x"]):
        done = imgtools("snapshot", *words)
        assert (done.code, done.stderr.count("\n")) == (4, 1)


def killed_image(folder: Path, *, resized: bool = False) -> tuple[Path, str, str]:
    """An image with a snapshot ``first``, its content now and then."""
    image = write(make(folder / "guest.qcow2", 4 * MIB), (1, MIB // 2, MIB))
    qemu_img("snapshot", "-c", "first", image)
    new = content(image)
    write(image, (2, MIB, MIB))
    if resized:
        qemu_img("resize", "-q", "--shrink", "-f", "qcow2", image, 2 * MIB)
    return image, content(image), new


@pytest.mark.parametrize("resized", [False, True])
def test_killed_anywhere_it_is_the_old_state_or_the_new(tmp_path: Path, resized: bool) -> None:
    image, old, new = killed_image(tmp_path, resized=resized)
    words: list[str | Path] = ["snapshot", "apply", image, "first"]

    def look() -> str:
        check(image, marks=True)
        found = {old: "old", new: "new"}.get(content(image), "between")
        saved = names(image)[1:]
        if found == "between":
            assert resized, "the state is neither the old nor the new one"
        if found != "old":
            assert saved, "no way back"
        assert here(*words) == 0
        assert content(image) == new
        assert check(image) == 0
        copy = tmp_path / "start" / "back.qcow2"
        shutil.copyfile(image, copy)
        assert here("snapshot", "apply", copy, names(image)[1]) == 0
        assert content(copy) == old
        return found

    # An apply has fewer than fifty points to die at: all of them, and half as many of the other.
    kills = KILLS // 2 if resized else KILLS
    outcomes = kill_loop(words, [image], look, kills=kills)
    assert outcomes["killed"] >= KILLS // 2, outcomes
    assert outcomes["old"], outcomes
    assert outcomes["new"], outcomes


@pytest.mark.parametrize("verb", ["create", "apply", "delete"])
def test_what_a_killed_run_left_is_told_and_set_right(tmp_path: Path, verb: str) -> None:
    image, old, new = killed_image(tmp_path)
    words: list[str | Path] = ["snapshot", verb, image, "second" if verb == "create" else "first"]

    def look() -> str:
        state, snapshots = content(image), names(image)
        assert state in (old, new if verb == "apply" else old)
        assert snapshots[:1] == ["first"] or (verb, snapshots) == ("delete", [])
        done = subprocess.run(["qemu-img", "check", "-q", image], check=False)
        if done.returncode:
            code, told = said("image", "check", image)
            assert code == 10
            assert f"imgtools recover {image}" in told
            assert '"action": "mend"' in said("recover", "--list", "--json", image)[1]
        assert here("recover", image) == 0
        assert check(image) == 0
        assert here("image", "check", image) == 0
        assert (content(image), names(image)) == (state, snapshots)
        return "mended" if done.returncode else "whole"

    outcomes = kill_loop(words, [image], look, kills=KILLS // 3)
    assert outcomes["killed"] > 10
    assert outcomes["mended"], outcomes
