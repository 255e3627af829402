"""Bad input against every verb: one line, a documented exit code, and nothing is changed."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.direct.image.chains import MIB, make, write
from tests.direct.image.crashes import said
from tests.direct.image.disks import HARD, loop_device, tmpfs
from tests.direct.test_hostile_images import REFUSED, make_device

pytestmark = pytest.mark.direct

Words = list[str | Path]


class Place:
    """A folder with good images beside which the verbs work on a bad one, ``bad``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = write(make(folder / "good.qcow2", 2 * MIB), (1, 0, MIB))
        self.overlay = make(folder / "o.qcow2", 2 * MIB, backing="good.qcow2", image_format="qcow2")
        self.alone = write(make(folder / "alone.qcow2", 2 * MIB), (1, 0, MIB))
        self.data = folder / "data"
        self.data.write_bytes(bytes(512))
        self.out = folder / "out"

    def state(self) -> dict[str, str]:
        """Every name in the folder, and what it holds."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            regular = stat.S_ISREG(status.st_mode)
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
        return found


READING: dict[str, Callable[[Place, Path], Words]] = {
    "convert": lambda at, bad: ["convert", "-O", "qcow2", bad, at.out],
    "create": lambda at, bad: ["image", "create", "-b", bad, at.out],
    "rebase onto": lambda at, bad: ["rebase", "-b", bad, at.overlay],
    "check": lambda at, bad: ["image", "check", bad],
    "compare": lambda at, bad: ["image", "compare", bad, at.good],
    "compare with": lambda at, bad: ["image", "compare", at.good, bad],
    "map": lambda at, bad: ["image", "map", bad],
    "measure": lambda at, bad: ["image", "measure", "-O", "qcow2", bad],
    "snapshot list": lambda at, bad: ["snapshot", "list", bad],
    "bitmap list": lambda at, bad: ["image", "bitmap", "list", bad],
    "amend (shown)": lambda at, bad: ["image", "amend", bad],
    "read": lambda at, bad: ["image", "read", "-o", at.out, bad, "0", "512"],
}
CHANGING: dict[str, Callable[[Place, Path], Words]] = {
    "resize": lambda at, bad: ["image", "resize", bad, "+1M"],
    "rebase": lambda at, bad: ["rebase", "--flatten", bad],
    "commit": lambda at, bad: ["image", "commit", bad],
    "snapshot create": lambda at, bad: ["snapshot", "create", bad, "x"],
    "snapshot apply": lambda at, bad: ["snapshot", "apply", bad, "x"],
    "snapshot delete": lambda at, bad: ["snapshot", "delete", bad, "x"],
    "bitmap add": lambda at, bad: ["image", "bitmap", "add", bad, "x"],
    "amend": lambda at, bad: ["image", "amend", "-o", "lazy_refcounts=on", bad],
    "write": lambda at, bad: ["image", "write", "--from", at.data, bad, "0"],
    "check -r": lambda at, bad: ["image", "check", "-r", "all", bad],
    "convert onto": lambda at, bad: ["convert", "-n", "--force", "-O", "qcow2", at.good, bad],
}
VERBS = {**READING, **CHANGING}


MAKING: dict[str, Callable[[Place, Path], Words]] = {
    "convert": lambda at, new: ["convert", "-O", "raw", at.good, new],
    "compress": lambda at, new: ["convert", "-c", "-O", "qcow2", at.good, new],
    "create": lambda at, new: ["image", "create", new, "1M"],
    "create, full": lambda at, new: [
        *("image", "create", "-f", "raw", "--preallocation", "full", new, "1M")
    ],
    "create, over": lambda at, new: ["image", "create", "-b", at.good, new],
    "read": lambda at, new: ["image", "read", "-o", new, at.good, "0", "1M"],
}

# What is wrong with these is what they rest on: their own tables can be looked at all the same.
_CHAINS = ("self_backed", "cycle", "no_parent", "passwd_backed", "raw_in_disguise", "json_backed")
BY_ITSELF = {f"make_{name}" for name in (*_CHAINS, "vmdk_host_extent")}
OWN_TABLES = ("check", "check -r", "snapshot list", "bitmap list")


def refused(at: Place, words: Words, codes: tuple[int, ...] = (4, 8)) -> str:
    """The verb ends with one of ``codes``, one line (returned), and has changed nothing."""
    before = at.state()
    code, text = said(*words)
    assert code in codes, (words, code, text)
    lines = [line for line in text.splitlines() if "warning: " not in line]
    assert len(lines) == 1, (words, text)
    assert lines[0].startswith("imgtools: "), (words, text)
    assert "Traceback" not in text
    assert at.state() == before, words
    return text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Place, Path]]:
    """Every hostile image in a place of its own, by its name."""
    found = {}
    for make_one in REFUSED:
        if make_one is not make_device:  # a verb that errs would write to it
            at = Place(tmp_path_factory.mktemp(make_one.__name__))
            found[make_one.__name__] = (at, make_one(at.folder))
    return found


# The last one changes what it can.
@pytest.mark.parametrize("verb", [*sorted(VERBS.keys() - {"check -r"}), "check -r"])
def test_hostile_headers(hostile: dict[str, tuple[Place, Path]], verb: str) -> None:
    for name, (at, bad) in hostile.items():
        if verb not in OWN_TABLES or name not in BY_ITSELF:
            refused(at, VERBS[verb](at, bad))
            continue
        before = at.state()
        code, text = said(*VERBS[verb](at, bad))
        assert code in (0, 4, 8, 10), text
        assert "Traceback" not in text
        assert "root:" not in text
        assert at.state() == before or verb == "check -r"


@pytest.mark.parametrize("name", [HARD, "json:{}", "nbd:x"])
def test_odd_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are names of files and nothing else, relative ones too."""
    monkeypatch.chdir(tmp_path)
    at = Place(tmp_path)
    odd = at.good.with_name(name)
    at.good.rename(odd)
    at.good = make(tmp_path / "twin.qcow2", 2 * MIB)
    write(at.good, (1, 0, MIB))
    (tmp_path / "o.qcow2").unlink()
    for verb, words in READING.items():
        if verb == "rebase onto":
            continue
        at.out.unlink(missing_ok=True)
        code, text = said(*words(at, Path(name)))
        assert code == 0, (verb, text)
    for verb in ("snapshot create", "snapshot apply", "snapshot delete", "bitmap add"):
        code, text = said(*CHANGING[verb](at, Path(name)))
        assert code == 0, (verb, text)
    for verb in ("write", "amend", "resize", "check -r"):
        code, text = said(*CHANGING[verb](at, Path(name)))
        assert code == 0, (verb, text)


def test_read_only_storage(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "ro", "64m") as folder:
        at = Place(folder)
        for words in (["snapshot", "create", at.good, "x"], ["image", "check", at.good]):
            assert said(*words)[0] == 0
        remount(folder, "ro")
        for verb, words in CHANGING.items():
            which = at.overlay if verb in ("rebase", "commit") else at.alone
            if verb != "check -r":  # the image is in order, and nothing is to be written
                assert "Read-only" in refused(at, words(at, which), (8,))
        for words in MAKING.values():
            assert "Read-only" in refused(at, words(at, folder / "new"), (8,))
        assert said("convert", "-O", "raw", at.good, tmp_path / "copy")[0] == 0


def test_full_disks(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "full", "16m") as folder:
        at = Place(folder)
        write(at.overlay, (2, MIB, MIB // 2))
        hold = folder / "hold"
        hold.write_bytes(bytes(32768))  # what the tables of a new image take, and no data
        fill(folder / "fill")
        hold.unlink()
        for verb, words in MAKING.items():
            if verb not in ("create", "create, over"):
                refused(at, words(at, folder / "new"), (8,))
        fill(folder / "rest")
        content = {path: said("image", "map", path)[1] for path in (at.alone, at.overlay)}
        for verb, words in CHANGING.items():
            if verb in ("check -r", "convert onto", "snapshot delete", "snapshot apply"):
                continue
            which = at.overlay if verb in ("rebase", "commit") else at.alone
            code, text = said(*words(at, which))
            assert (code, text.count("\n")) == (8, 1), (verb, text)
            assert "space" in text or "free" in text, (verb, text)
        assert {path: said("image", "map", path)[1] for path in content} == content
        assert said("image", "check", at.alone)[0] in (0, 10)
        assert said("recover", at.alone)[0] == 0
        assert said("image", "check", at.alone)[0] == 0


def test_block_devices(tmp_path: Path) -> None:
    """An empty one is nothing that can be changed; none is overwritten unless that was said."""
    at = Place(tmp_path)
    back = tmp_path / "back"
    back.write_bytes(bytes(2 * MIB))
    with loop_device(back) as device:
        for words in CHANGING.values():
            refused(at, words(at, device), (2, 4, 8))
        for words in MAKING.values():
            refused(at, words(at, device), (2, 8))


SIZES = ("0", "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "8E")
SENSIBLE = {("write", "0"), ("convert -S", "0"), ("convert -r", "9223372036854775807")}
SIZED: dict[str, Callable[[Place, str], Words]] = {
    "create": lambda at, size: ["image", "create", at.out, "--", size],
    "resize": lambda at, size: ["image", "resize", "--shrink", at.good, "--", size],
    "measure": lambda at, size: ["image", "measure", "-O", "qcow2", f"--size={size}"],
    "read": lambda at, size: ["image", "read", "-o", at.out, "--", at.good, size, size],
    "write": lambda at, size: ["image", "write", "--from", at.data, "--", at.good, size],
    "convert -S": lambda at, size: ["convert", f"--sparse={size}", "-O", "raw", at.good, at.out],
    "convert -r": lambda at, size: [
        "convert",
        f"--rate-limit={size}",
        "-O",
        "raw",
        at.good,
        at.out,
    ],
    "cluster_size": lambda at, size: [
        "image",
        "create",
        "-o",
        f"cluster_size={size}",
        at.out,
        "1M",
    ],
}


@pytest.mark.parametrize("verb", SIZED)
def test_senseless_sizes(tmp_path: Path, verb: str) -> None:
    at = Place(tmp_path)
    for size in SIZES:
        if (verb, size) in SENSIBLE:
            continue
        refused(at, SIZED[verb](at, size), (2, 4, 8))


def fill(path: Path) -> None:
    """Take all the space that there is."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)
