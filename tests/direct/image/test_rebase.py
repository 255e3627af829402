"""``imgtools rebase``: what the guest sees never changes."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.chains import MIB, backing, check, guest, make, raw, result, write
from tests.direct.image.crashes import KILLS, here, kill_loop
from tests.direct.image.disks import content, qemu_img

pytestmark = pytest.mark.direct

SIZE = 16 * MIB


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return raw(tmp_path / "old.img", SIZE, (1, MIB, 4 * MIB), (2, 8 * MIB, 2 * MIB))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return raw(tmp_path / "new.img", SIZE, (1, MIB, 2 * MIB), (3, 6 * MIB, 3 * MIB))


@pytest.fixture
def overlay(tmp_path: Path, old: Path) -> Path:
    path = make(tmp_path / "overlay.qcow2", SIZE, backing=old.name, image_format="raw")
    return write(path, (9, 2 * MIB, MIB), (8, 12 * MIB, 4096))


def test_content_stays_and_name_and_format_are_stored(overlay: Path, new: Path) -> None:
    before = content(overlay)
    found = result("rebase", "-b", new, overlay)
    assert found["method"] == "copy"
    assert found["done"]
    assert backing(overlay) == (str(new), "raw")
    assert content(overlay) == before
    assert check(overlay) == 0
    Path(overlay.parent / "old.img").unlink()
    assert content(overlay) == before


def test_trap_3_the_format_is_always_stored_and_never_guessed_by_qemu(
    tmp_path: Path, overlay: Path
) -> None:
    above = make(tmp_path / "mid.qcow2", SIZE, backing="old.img", image_format="raw")
    assert imgtools("rebase", "-b", above, overlay).code == 0
    assert backing(overlay) == (str(above), "qcow2")
    # A raw image that a guest made look like an overlay over a host file.
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secret" * 1000)
    trap = make(tmp_path / "trap", SIZE)
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", secret, "-F", "raw", trap)
    os.truncate(trap, SIZE)
    before = overlay.read_bytes()
    refused = imgtools("rebase", "-b", trap, overlay)
    assert refused.code == 8
    assert "secret.txt" in refused.stderr
    assert overlay.read_bytes() == before
    seen = content(overlay)
    renamed = trap.rename(tmp_path / "trap.img")
    assert imgtools("rebase", "-b", renamed, "-F", "raw", overlay).code == 0
    assert backing(overlay) == (str(renamed), "raw")
    assert content(overlay) == seen


def test_the_format_stored_in_the_chain_is_kept(tmp_path: Path, overlay: Path) -> None:
    top = make(tmp_path / "top.qcow2", SIZE, backing="overlay.qcow2", image_format="qcow2")
    write(top, (7, 0, MIB))
    before = content(top)
    assert imgtools("rebase", "-b", tmp_path / "old.img", top).code == 0
    assert backing(top)[1] == "raw"
    assert content(top) == before


def test_trap_4_unsafe_is_refused_where_the_content_would_change(overlay: Path, new: Path) -> None:
    before = overlay.read_bytes()
    refused = imgtools("rebase", "-u", "-b", new, overlay)
    assert refused.code == 8
    assert f"differ from byte {3 * MIB} on" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert overlay.read_bytes() == before


def test_trap_4_unsafe_is_refused_for_another_size(tmp_path: Path, overlay: Path) -> None:
    longer = raw(tmp_path / "longer.img", SIZE + MIB, (1, MIB, 4 * MIB), (2, 8 * MIB, 2 * MIB))
    assert imgtools("rebase", "-u", "-b", longer, overlay).code == 8
    assert backing(overlay)[0] == "old.img"


def test_unsafe_writes_the_header_only_once_the_parents_are_proved_equal(
    tmp_path: Path, overlay: Path, old: Path
) -> None:
    copy = tmp_path / "copy.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", old, copy)
    before, size = content(overlay), overlay.stat().st_size
    found = result("rebase", "-u", "-b", copy, overlay)
    assert (found["method"], found["compared"]) == ("header", True)
    assert backing(overlay) == (str(copy), "qcow2")
    assert (content(overlay), overlay.stat().st_size) == (before, size)


def test_a_missing_parent_needs_the_users_word(tmp_path: Path, overlay: Path, old: Path) -> None:
    before = content(overlay)
    moved = old.rename(tmp_path / "moved.img")
    refused = imgtools("rebase", "-b", moved, overlay)
    assert refused.code == 4
    assert "old.img does not exist" in refused.stderr
    assert "-u" in refused.stderr
    done = imgtools("rebase", "-u", "-b", moved, overlay)
    assert done.code == 0
    assert "nobody compared" in done.stderr
    assert content(overlay) == before
    assert imgtools("rebase", "-u", "--strict", "-b", moved, overlay).code == 0


def test_trap_12_relative_stays_relative_to_the_overlay(
    tmp_path: Path, overlay: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(overlay)
    (tmp_path / "below").mkdir()
    new.rename(tmp_path / "below" / "new.img")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    beside = imgtools("rebase", "-b", "below/new.img", "../overlay.qcow2")
    assert beside.code == 4
    assert "-b ../below/new.img" in beside.stderr
    assert imgtools("rebase", "-b", "../below/new.img", "../overlay.qcow2").code == 0
    assert backing(overlay) == ("below/new.img", "raw")
    assert content(overlay) == before


@pytest.mark.parametrize(
    "name", ["nbd:1,a=b.img", "json:{}.img", "-x.img", "a\nb.img", "\udcff.img"]
)
def test_trap_12_a_name_is_never_taken_for_a_protocol_or_an_option(
    tmp_path: Path, overlay: Path, new: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(overlay)
    new.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert imgtools("rebase", "-b", name, "overlay.qcow2").code == 0
    assert content(overlay) == before
    found = result("info", overlay)
    assert len(found[0]["layers"]) == 2


def test_an_overlay_behind_a_link(tmp_path: Path, overlay: Path, new: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "overlay.qcow2"
    link.symlink_to("../overlay.qcow2")
    (tmp_path / "links" / "old.img").symlink_to("../old.img")
    before = content(overlay)
    relative = os.path.relpath(new)
    assert imgtools("rebase", "-b", relative, link).code == 0
    assert link.is_symlink()
    assert (content(overlay), content(link)) == (before, before)


def test_loops_are_refused(tmp_path: Path, overlay: Path) -> None:
    top = make(tmp_path / "top.qcow2", SIZE, backing="overlay.qcow2", image_format="qcow2")
    before = overlay.read_bytes()
    for parent, what in ((top, "loop"), (overlay, "on itself")):
        for option in ("--dry-run", "-u", "-q"):
            refused = imgtools("rebase", option, "-b", parent, overlay)
            assert refused.code == 8
            assert what in refused.stderr
    assert overlay.read_bytes() == before


@pytest.mark.parametrize("megabytes", [4, 7, 40])
def test_a_parent_of_another_size(tmp_path: Path, overlay: Path, megabytes: int) -> None:
    before = content(overlay)
    other = raw(tmp_path / "other.img", megabytes * MIB, (5, MIB, (megabytes - 1) * MIB))
    done = imgtools("rebase", "-b", other, overlay)
    assert done.code == 0
    assert ("smaller than the overlay" in done.stderr) == (megabytes < 16)
    assert content(overlay) == before


@pytest.mark.parametrize("options", [["--flatten"], ["-b", ""]])
def test_flatten(overlay: Path, old: Path, options: list[str]) -> None:
    before = content(overlay)
    found = result("rebase", *options, overlay)
    assert found["method"] == "flatten"
    old.unlink()
    assert backing(overlay) == (None, None)
    assert content(overlay) == before
    assert result("rebase", *options, overlay)["method"] == "nothing"


def test_flatten_measures_the_free_space_first(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24M", "none", str(room)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount")
    try:
        base = raw(tmp_path / "base.img", 64 * MIB, (1, MIB, 40 * MIB))
        overlay = make(room / "o.qcow2", 64 * MIB, backing=str(base), image_format="raw")
        before = overlay.read_bytes()
        refused = imgtools("rebase", "--flatten", overlay)
        assert refused.code == 8
        assert "may grow by 40 MiB" in refused.stderr
        assert overlay.read_bytes() == before
        # Without a bound before: what runs full leaves the old content.
        seen = content_of_chain(overlay, tmp_path)
        zeros = raw(tmp_path / "zeros.img", 64 * MIB)
        refused = imgtools("rebase", "-b", zeros, overlay)
        assert refused.code == 8
        assert "the storage is full" in refused.stderr
        assert content_of_chain(overlay, tmp_path) == seen
        assert backing(overlay)[0] == str(base)
    finally:
        subprocess.run(["umount", str(room)], check=True)


def content_of_chain(overlay: Path, folder: Path) -> bytes:
    copy = folder / "copy.content"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", overlay, copy)
    return copy.read_bytes()


def test_dry_run_changes_nothing(overlay: Path, new: Path) -> None:
    before = overlay.read_bytes()
    found = result("rebase", "--dry-run", "-b", new, overlay)
    assert (found["method"], found["done"]) == ("copy", False)
    assert found["grows_by_at_most"] >= 4 * MIB
    assert overlay.read_bytes() == before


def test_snapshots_inside_would_change(overlay: Path, new: Path, old: Path) -> None:
    qemu_img("snapshot", "-c", "one", overlay)
    before = overlay.read_bytes()
    for words in (["-b", str(new)], ["--flatten"]):
        refused = imgtools("rebase", *words, overlay)
        assert refused.code == 8
        assert "internal snapshots" in refused.stderr
    assert overlay.read_bytes() == before
    same = old.with_name("same.img")
    same.write_bytes(old.read_bytes())
    assert imgtools("rebase", "-b", same, overlay).code == 0


def test_images_in_use_are_refused(overlay: Path, new: Path) -> None:
    before = overlay.read_bytes()
    with guest(overlay):
        refused = imgtools("rebase", "-b", new, overlay)
        assert refused.code == 8
        assert "qemu-system" in refused.stderr
    with guest(new, image_format="raw"):
        assert imgtools("rebase", "-b", new, overlay).code == 8
    assert overlay.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["overlay.qcow2"], 2, "rest on what?"),
        (["-b", "x", "--flatten", "overlay.qcow2"], 2, "cannot be combined"),
        (["-b", "nowhere.img", "overlay.qcow2"], 4, "no such image file"),
        (["--flatten", "nowhere.qcow2"], 4, "no such image file"),
        (["-F", "nonsense", "-b", "old.img", "overlay.qcow2"], 2, "unknown image format"),
        (["--flatten", "old.img"], 4, "raw image"),
        (["-b", ".", "overlay.qcow2"], 4, "new backing file"),
        (["-b", "text", "overlay.qcow2"], 8, "not a disk image"),
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
    (tmp_path / "text").write_text("hello" * 100)
    before = overlay.read_bytes()
    monkeypatch.chdir(tmp_path)
    done = imgtools("rebase", *words)
    assert done.code == code
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert overlay.read_bytes() == before


def test_random_chains(tmp_path: Path) -> None:
    dice = random.Random(7)

    def parts(size: int) -> list[tuple[int, int, int]]:
        places = [dice.randrange(2, size // 65536 - 4) * 65536 for _ in range(6)]
        return [
            (dice.randrange(4), at + dice.choice((0, 512, 4096)), dice.randrange(1, 5) * 32768)
            for at in places
        ]

    for number in range(3):
        sizes = [dice.choice((4, 5, 6)) * MIB for _ in range(3)]
        first = raw(tmp_path / f"first{number}.img", sizes[0], *parts(sizes[0]))
        second = make(tmp_path / f"second{number}.qcow2", sizes[1])
        write(second, *parts(sizes[1]))
        top = tmp_path / f"top{number}.qcow2"
        make(top, sizes[2], backing=first.name, image_format="raw")
        write(top, *parts(sizes[2]))
        before = content(top)
        for parent in (second, first):
            assert imgtools("rebase", "-q", "-b", parent, top).code == 0
            assert content(top) == before
            assert check(top) == 0


@pytest.mark.parametrize("way", ["rebase", "flatten"])
def test_killed_anywhere_it_shows_the_same_and_can_be_finished(tmp_path: Path, way: str) -> None:
    size, step = 10 * MIB, MIB // 8
    # Pieces here and there, so that each is a write of its own.
    old = raw(tmp_path / "old.img", size, *((1, at, step // 2) for at in range(0, size, step)))
    raw(tmp_path / "new.img", size, (2, MIB, 4 * MIB))
    overlay = make(tmp_path / "o.qcow2", size, backing=str(old), image_format="raw")
    write(overlay, (9, MIB + step, 2 * step))
    before, start = content(overlay), overlay.stat().st_size
    words: list[str | Path] = ["rebase", "--flatten", overlay]
    if way == "rebase":
        words = ["rebase", "-b", tmp_path / "new.img", overlay]

    def look() -> str:
        grown, name = overlay.stat().st_size > start, backing(overlay)[0]
        check(overlay)
        assert content(overlay) == before
        assert here(*words) == 0
        assert check(overlay) == 0
        assert content(overlay) == before
        assert backing(overlay)[0] == (str(tmp_path / "new.img") if way == "rebase" else None)
        return "half-way" if grown and name == str(old) else "before or after"

    kills = KILLS if way == "rebase" else KILLS // 3
    outcomes = kill_loop(words, [overlay], look, kills=kills)
    assert outcomes["killed"] >= kills, outcomes
    assert outcomes["half-way"], outcomes


def test_a_damaged_overlay_is_left_alone(overlay: Path, new: Path) -> None:
    image = bytearray(overlay.read_bytes())
    table = int.from_bytes(image[48:56], "big")
    block = int.from_bytes(image[table : table + 8], "big")
    last = len(image) // 65536 - 1
    image[block + 2 * last : block + 2 * last + 2] = b"\0\0"  # a cluster in use counts as free
    overlay.write_bytes(image)
    assert subprocess.run(["qemu-img", "check", "-q", overlay], check=False).returncode == 2
    for words in (["rebase", "-b", new, overlay], ["image", "commit", overlay]):
        refused = imgtools(*words)
        assert refused.code == 4
        assert "is damaged" in refused.stderr
    assert overlay.read_bytes() == image
