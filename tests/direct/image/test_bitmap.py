"""``imgtools image bitmap``: persistent dirty bitmaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, check, guest, make, raw, result, write
from tests.direct.image.disks import info

pytestmark = pytest.mark.direct

BITMAP = ("image", "bitmap")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make(tmp_path / "guest.qcow2", 16 * MIB)


def theirs(image: Path) -> dict[str, Any]:
    found = info(image)["format-specific"]["data"].get("bitmaps", [])
    return {one["name"]: (one["granularity"], one["flags"]) for one in found}


def test_the_life_of_a_bitmap(image: Path) -> None:
    made = result(*BITMAP, "add", "-g", "128K", image, "a:b,c=d")["bitmap"]
    assert made == {"name": "a:b,c=d", "granularity": 131072, "flags": ["auto"]}
    assert imgtools(*BITMAP, "add", "--disabled", image, "-second").code == 2
    assert imgtools(*BITMAP, "add", "--disabled", image, "second").code == 0
    assert theirs(image) == {"a:b,c=d": (131072, ["auto"]), "second": (65536, [])}
    assert imgtools(*BITMAP, "disable", image, "a:b,c=d").code == 0
    assert imgtools(*BITMAP, "enable", image, "second").code == 0
    assert theirs(image) == {"a:b,c=d": (131072, []), "second": (65536, ["auto"])}
    assert [one["name"] for one in result(*BITMAP, "list", image)] == ["a:b,c=d", "second"]
    assert imgtools(*BITMAP, "list", image).lines[0].split() == ["NAME", "GRANULARITY", "FLAGS"]
    assert imgtools(*BITMAP, "clear", image, "second").code == 0
    assert imgtools(*BITMAP, "remove", image, "a:b,c=d").code == 0
    assert list(theirs(image)) == ["second"]
    assert check(image) == 0


def test_the_bitmaps_of_overlays(tmp_path: Path, image: Path) -> None:
    """Each has its own; what lies below stays as it is."""
    overlays = [
        make(tmp_path / f"{name}.qcow2", 16 * MIB, backing="guest.qcow2", image_format="qcow2")
        for name in ("one", "two")
    ]
    base = image.read_bytes()
    for overlay in overlays:
        assert imgtools(*BITMAP, "add", overlay, "mark").code == 0
        assert theirs(overlay) == {"mark": (65536, ["auto"])}
    write(overlays[1], (1, 0, MIB))
    for verb in ("disable", "enable", "clear"):
        assert imgtools(*BITMAP, verb, overlays[0], "mark").code == 0
    words = ("merge", "--from", overlays[1], overlays[0], "mark", "mark")
    assert imgtools(*BITMAP, *words).code == 0
    taken = tmp_path / "taken.qcow2"
    done = imgtools("convert", "-O", "qcow2", "--bitmaps", overlays[0], taken)
    assert (done.code, list(theirs(taken))) == (0, ["mark"])
    assert imgtools(*BITMAP, "remove", overlays[0], "mark").code == 0
    assert (theirs(overlays[0]), check(overlays[0]), image.read_bytes()) == ({}, 0, base)


def test_merge_in_one_image_and_from_another(tmp_path: Path, image: Path) -> None:
    other = make(tmp_path / "other.qcow2", 16 * MIB)
    assert imgtools(*BITMAP, "add", other, "theirs").code == 0
    write(other, (1, 0, MIB))
    for name in ("one", "two"):
        assert imgtools(*BITMAP, "add", image, name).code == 0
    before = other.read_bytes()
    assert imgtools(*BITMAP, "merge", "--from", other, image, "one", "theirs").code == 0
    assert imgtools(*BITMAP, "merge", image, "two", "one").code == 0
    assert other.read_bytes() == before
    short = make(tmp_path / "short.qcow2", MIB)
    assert imgtools(*BITMAP, "add", short, "theirs").code == 0
    assert imgtools(*BITMAP, "merge", "--from", short, image, "one", "theirs").code == 8


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["add", "guest.qcow2", "b0"], 8, "has a bitmap b0 already"),
        (["add", "-g", "300", "guest.qcow2", "b1"], 2, "power of two"),
        (["add", "-g", "0", "guest.qcow2", "b1"], 2, "power of two"),
        (["add", "guest.qcow2", ""], 2, "can be seen"),
        (["add", "guest.qcow2", "x" * 1024], 2, "at most 1023"),
        (["remove", "guest.qcow2", "b1"], 4, "there are: b0"),
        (["merge", "guest.qcow2", "b0", "b1"], 4, "there are: b0"),
        (["add", "disk.img", "b0"], 4, "a raw image holds no bitmaps"),
    ],
)
def test_one_clear_line(
    words: list[str],
    code: int,
    complaint: str,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw(image.with_name("disk.img"), MIB)
    assert imgtools(*BITMAP, "add", image, "b0").code == 0
    before = image.read_bytes()
    monkeypatch.chdir(image.parent)
    done = imgtools(*BITMAP, *words)
    assert (done.code, done.stderr.count("\n")) == (code, 1)
    assert complaint in done.stderr
    assert image.read_bytes() == before


def test_an_image_in_use_is_listed_and_not_changed(image: Path) -> None:
    with guest(image):
        assert imgtools(*BITMAP, "list", image).code == 0
        assert imgtools(*BITMAP, "add", image, "b0").code == 8
    assert theirs(image) == {}
