"""An image whose commit was killed half-way: who reads it sees the change as done, and is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import Result, imgtools
from tests.direct.image.chains import MIB, make, write
from tests.direct.image.crashes import crashing
from tests.direct.image.disks import digest, qemu_img
from tests.direct.image.killing import records

pytestmark = pytest.mark.direct

SIZE = 4 * MIB


class Pending:
    """``image`` is half-written; ``before`` and ``after`` are what it was and what it will be."""

    def __init__(self, folder: Path) -> None:
        self.image, self.before, self.after = (
            folder / "a.qcow2",
            folder / "before",
            folder / "after",
        )


@pytest.fixture(scope="module")
def pending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pending]:
    folder = tmp_path_factory.mktemp("pending")
    at = Pending(folder)
    write(make(at.image, SIZE), (1, 0, MIB))
    qemu_img("snapshot", "-c", "first", at.image)
    start = folder / "start"
    shutil.copyfile(at.image, start)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", at.image, at.before)
    data = folder / "data"
    data.write_bytes(b"\2" * MIB + b"\3" * MIB)
    words: list[str | Path] = ["image", "write", "--from", data, at.image, MIB // 2]
    words = [str(word) for word in words]
    with crashing(folder) as crasher:
        points = crasher.points(words)
        qemu_img("convert", "-f", "qcow2", "-O", "raw", at.image, at.after)
        old, new = digest(at.before), digest(at.after)
        now = folder / "now"
        for point in reversed(points):
            shutil.copyfile(start, at.image)
            crasher.kill(words, point)
            qemu_img("convert", "-f", "qcow2", "-O", "raw", at.image, now)
            if records(folder) and digest(now) not in (old, new):
                break
            assert imgtools("recover", at.image).code == 0
        else:
            raise AssertionError("no kill left the image half-written")
    before = digest(at.image)
    yield at
    assert digest(at.image) == before


def warned(done: Result, *, code: int = 0) -> Result:
    """It ended with ``code``, and said no more than what is pending."""
    assert done.code == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "warning: " in done.stderr
    assert "a commit was interrupted" in done.stderr
    assert "imgtools recover" in done.stderr
    return done


def told(*words: str | Path) -> object:
    """The result in the JSON, whose only warning is that of the pending commit."""
    document = json.loads(imgtools(*words, "--json").text)
    assert [one["code"] for one in document["warnings"]] == ["transaction.pending"]
    return document["result"]


def test_compare(pending: Pending) -> None:
    words = ["image", "compare", "-F", "raw", pending.image]
    assert warned(imgtools(*words, pending.after)).text == "the same\n"
    warned(imgtools(*words, pending.before), code=10)
    assert told(*words, pending.after)
    assert warned(imgtools("image", "compare", "-f", "raw", pending.after, pending.image))
    assert imgtools(*words, pending.after, "--strict").code in (10, 20)


def test_map(pending: Pending) -> None:
    shown = warned(imgtools("image", "map", pending.image)).text
    assert ".imgtools" in shown  # the bytes lie in the overlay
    result = told("image", "map", pending.image)
    assert isinstance(result, dict)
    data = sum(one["length"] for one in result["extents"] if one["data"])
    assert data == 2 * MIB + MIB // 2
    assert imgtools("image", "map", "--strict", pending.image).code == 20


def test_measure(pending: Pending) -> None:
    words = ["image", "measure", "-O", "raw", pending.image]
    warned(imgtools(*words))
    assert told(*words) == {"required": SIZE, "fully_allocated": SIZE, "bitmaps": None}
    done = imgtools("image", "measure", "-O", "qcow2", "-l", "first", pending.image)
    assert (done.code, done.stderr.count("\n")) == (8, 1)
    assert "only the disk can be read" in done.stderr


def test_read(pending: Pending, tmp_path: Path) -> None:
    done = warned(imgtools("image", "read", pending.image, "0", "4M"))
    assert done.stdout == pending.after.read_bytes()
    out = tmp_path / "out"
    told("image", "read", "-o", out, pending.image, "0", "4M")
    assert out.read_bytes() == pending.after.read_bytes()
    for path in pending.image.parent.iterdir():  # neither the image nor its overlay is a target
        if path.name.endswith(".qcow2"):
            words = ["image", "read", "--force", "-o", path, pending.image, "0", "512"]
            assert imgtools(*words).code == 8


def test_convert(pending: Pending, tmp_path: Path) -> None:
    warned(imgtools("convert", "-O", "raw", pending.image, tmp_path / "copy"))
    assert digest(tmp_path / "copy") == digest(pending.after)


def test_info_and_check_say_so(pending: Pending) -> None:
    warned(imgtools("info", pending.image))
    warned(imgtools("image", "info", pending.image))
    assert imgtools("info", "--strict", pending.image).code == 20
    assert told("info", pending.image)
    warned(imgtools("snapshot", "list", pending.image))
    warned(imgtools("image", "bitmap", "list", pending.image))
    done = imgtools("image", "check", pending.image)
    assert done.code in (0, 10)
    assert "warning: " in done.stderr
    assert "a commit was interrupted" in done.stderr
    codes = json.loads(imgtools("image", "check", "--json", pending.image).text)["warnings"]
    assert "transaction.pending" in [one["code"] for one in codes]


def test_a_change_that_had_not_come_to_its_commit(pending: Pending, tmp_path: Path) -> None:
    """The image is whole, and is shown so; what lies about is told."""
    image = write(make(tmp_path / "a.qcow2", MIB), (1, 0, MIB))
    data = tmp_path / "data"
    data.write_bytes(b"new")
    words = ["image", "write", "--from", str(data), str(image), "0"]
    with crashing(tmp_path) as crasher:
        points = crasher.points(words)
        for point in points:
            crasher.kill(words, point)
            texts = [(tmp_path / name).read_text() for name in records(tmp_path)]
            if any('"working"' in text for text in texts):
                break
            assert imgtools("recover", image).code == 0
        else:
            raise AssertionError("no kill left a record")
    for verb in (["info"], ["image", "check"]):
        done = imgtools(*verb, image)
        assert done.code == 0
        assert "which left the image whole" in done.stderr
    done = imgtools("image", "read", image, "0", "3")
    assert (done.code, done.stderr) == (0, "")
    assert imgtools("recover", image).code == 0
    assert imgtools("info", image).stderr == ""
