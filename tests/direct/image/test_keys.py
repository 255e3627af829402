"""Keys of encrypted images in the verbs that only read: compare, map, measure, info."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli import Result, imgtools
from tests.direct.image.disks import SIZE, digest, make_disk, qemu_img

pytestmark = pytest.mark.direct

SECRET = "a secret, with a comma"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk, and the same encrypted: ``disk.img``, ``locked.qcow2``, ``locked.luks``, ``key``."""
    folder = tmp_path_factory.mktemp("keys")
    disk, key = make_disk(folder), folder / "key"
    key.write_text(SECRET)
    (folder / "wrong").write_text("another\n")
    secret = ["--object", f"secret,id=s,file={key}"]
    for name, options in (
        ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
        ("luks", "key-secret=s,iter-time=10"),
    ):
        words = ["-f", "raw", "-O", name, "-o", options, disk, folder / f"locked.{name}"]
        # qemu times the key derivation, and gives up on a busy host.
        for _ in range(10):
            argv = ["qemu-img", "convert", *secret, *words]
            if subprocess.run(argv, check=False, capture_output=True).returncode == 0:
                break
        else:
            raise AssertionError(name)
    key.write_text(f"{SECRET}\n")
    return folder


def _opened(folder: Path, name: str) -> list[str]:
    """qemu-img's words for an encrypted image."""
    secret = ["--object", f"secret,id=s,data={SECRET.replace(',', ',,')}", "--image-opts"]
    if name == "luks":
        return [*secret, f"driver=luks,key-secret=s,file.filename={folder}/locked.luks"]
    path = f"file.filename={folder}/locked.qcow2"
    return [*secret, f"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,{path}"]


@pytest.mark.parametrize("name", ["qcow2", "luks"])
def test_what_a_key_opens(name: str, folder: Path) -> None:
    image, key = folder / f"locked.{name}", folder / "key"
    before = digest(image)
    words = ["image", "compare", "--json", image, "-F", "raw", folder / "disk.img"]
    done = imgtools(*words, "--key-file", key)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["result"]["sizes"] == [SIZE, SIZE]
    other = folder / "other.img"
    other.write_bytes((folder / "disk.img").read_bytes()[:-1] + b"!")
    done = imgtools(*words[:-1], other, "--key-file", "-", stdin=key.read_bytes())
    assert done.code == 10
    assert json.loads(done.stdout)["result"]["difference"]["offset"] // 512 == SIZE // 512 - 1
    theirs = json.loads(qemu_img("map", "--output=json", *_opened(folder, name)))
    done = imgtools("image", "map", "--json", "--key-file", key, image)
    assert json.loads(done.stdout)["result"]["extents"] == theirs
    theirs = json.loads(qemu_img("measure", "--output=json", "-O", "qcow2", *_opened(folder, name)))
    done = imgtools("image", "measure", "--json", "-O", "qcow2", "--source-key-file", key, image)
    assert json.loads(done.stdout)["result"]["required"] == theirs["required"]
    assert digest(image) == before


def test_two_encrypted_images(folder: Path) -> None:
    a, b = folder / "locked.qcow2", folder / "locked.luks"
    words = ["image", "compare", a, b, "--key-file"]
    assert imgtools(*words, folder / "key").code == 0
    assert imgtools(*words, folder / "key", "--key-file-b", folder / "key").code == 0
    done = imgtools(*words, folder / "key", "--key-file-b", folder / "wrong")
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    assert "key" in done.stderr
    assert imgtools(*words, "-", "--key-file-b", "-").code == 2
    plain = folder / "disk.img"
    assert imgtools("image", "compare", plain, b, "--key-file", folder / "key").code == 0
    copy = folder / "copy.img"
    copy.write_bytes(plain.read_bytes())
    done = imgtools("image", "compare", plain, copy, "--key-file", folder / "key")
    assert (done.code, "is not encrypted" in done.stderr) == (2, True)


def test_an_overlay_on_an_encrypted_image(folder: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    below = ["-b", folder / "locked.qcow2", "-F", "qcow2"]
    qemu_img("create", "-q", "-f", "qcow2", "-u", *below, overlay, str(SIZE))
    words = ["image", "compare", overlay, folder / "disk.img", "--key-file", folder / "key"]
    assert imgtools(*words).code == 0
    done = imgtools("image", "map", "--json", "--key-file", folder / "key", overlay)
    extents = json.loads(done.stdout)["result"]["extents"]
    assert {one["depth"] for one in extents if one["data"]} == {1}


def _no_secret(done: Result) -> None:
    assert SECRET not in done.stderr + done.text


@pytest.mark.parametrize("name", ["qcow2", "luks"])
def test_keys_that_do_not_open(name: str, folder: Path, tmp_path: Path) -> None:
    image, plain = folder / f"locked.{name}", folder / "disk.img"
    lines: list[tuple[list[str | Path], str]] = [
        (["compare", "-F", "raw", image, plain], "--key-file"),
        (["map", image], "--key-file"),
        (["measure", "-O", "qcow2", image], "--source-key-file"),
    ]
    for words, option in lines:
        done = imgtools("image", *words, option, folder / "wrong")
        assert (done.code, done.stderr.count("\n")) == (4, 1), (words, done.stderr)
        assert "key" in done.stderr
        _no_secret(done)
        for bad in (tmp_path / "none", "/dev/null", image):
            assert imgtools("image", *words, option, bad).code == 2
        if words[0] != "compare":
            fitting = [plain if word == image else word for word in words]
            done = imgtools("image", *fitting, option, folder / "key")
            assert (done.code, "is not encrypted" in done.stderr) == (2, True)
        if name == "qcow2":
            done = imgtools("image", *words)
            assert (done.code, done.stderr.count("\n")) == (4, 1)
            assert "encrypted" in done.stderr


def test_info_needs_no_key(folder: Path) -> None:
    for name in ("qcow2", "luks"):
        done = imgtools("info", "--json", folder / f"locked.{name}")
        assert done.code == 0, done.stderr
        (layer,) = json.loads(done.stdout)["result"][0]["layers"]
        assert layer["encryption"] == "luks"


def test_luks_of_version_2(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "two.luks"
    with image.open("wb") as stream:
        stream.truncate(20 << 20)
    quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode"]
    format_words = ["luksFormat", "--type", "luks2", *quick, image, "-"]
    subprocess.run(["cryptsetup", *format_words], input=SECRET.encode(), check=True)
    done = imgtools("image", "map", "--key-file", folder / "key", image)
    assert (done.code, done.stderr.count("\n")) == (4, 1)
    assert "cryptsetup open" in done.stderr
