"""``imgtools image measure`` against qemu-img measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import imgtools
from tests.direct.image.disks import SIZE, make_disk, qemu_img

pytestmark = pytest.mark.direct


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    path = folder / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", make_disk(folder), path)
    qemu_img("bitmap", "--add", "-f", "qcow2", path, "a-bitmap")
    qemu_img("snapshot", "-c", "before", path)
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["-O", "raw"],
        ["-O", "qcow2"],
        ["-O", "qcow2", "-o", "cluster_size=4k"],
        ["-O", "qcow2", "-o", "preallocation=full"],
        ["-O", "qcow2", "-l", "before"],
    ],
)
def test_a_copy_is_measured_as_qemu_img_does(words: list[str], source: Path) -> None:
    expected = json.loads(qemu_img("measure", "--output=json", *words, "-f", "qcow2", source))
    done = imgtools("image", "measure", "--json", *words, source)
    found = json.loads(done.stdout)["result"]
    assert found["required"] == expected["required"]
    assert found["fully_allocated"] == expected["fully-allocated"]
    assert found["bitmaps"] == expected.get("bitmaps")
    shown = imgtools("image", "measure", *words, source).text
    assert str(expected["required"]) in shown
    assert str(expected["fully-allocated"]) in shown


def test_an_empty_image(source: Path) -> None:
    expected = json.loads(qemu_img("measure", "--output=json", "-O", "qcow2", "--size", "10G"))
    done = imgtools("image", "measure", "--json", "-O", "qcow2", "--size", "10G")
    assert json.loads(done.stdout)["result"]["required"] == expected["required"]
    # qemu-img times the key derivation, for seconds.
    done = imgtools("image", "measure", "--json", "-O", "luks", source)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["result"]["required"] > SIZE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-O", "vdi", "--size", "1G"], 4),
        (["-O", "qcow2"], 2),
        (["-O", "qcow2", "--size", "0"], 2),
        (["-O", "qcow2", "--size", "8388608T"], 2),
        (["-O", "qcow2", "--size", "1G", "x.img"], 2),
        (["-O", "qcow2", "-l", "none", "--size", "1G"], 2),
        (["-O", "qcow2", "missing.img"], 4),
        (["-O", "qcow2", "-o", "cluster_size=7", "--size", "1G"], 2),
    ],
)
def test_bad_words(words: list[str], code: int) -> None:
    done = imgtools("image", "measure", *words)
    assert (done.code, done.stderr.count("\n"), done.stdout) == (code, 1, b"")
