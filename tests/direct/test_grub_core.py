"""The core image of a real GRUB for BIOS: what it names, and when that ends a run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.api import Guest
from imgtools.errors import GuestOperationError
from imgtools.guest.linux.grub import core_text
from imgtools_ops._ids import Ids, dashed
from imgtools_ops._references import references
from tests.cli import imgtools
from tests.unit.plugins.guests import make_tree

pytestmark = pytest.mark.direct

CORE = "/boot/grub/i386-pc/core.img"
VG, UUID = "tt6SjNLBObAzNV1xc2cU7R27DVN5CdbP", "f3c8b47a-df68-5de9-8a6f-a2815d857b81"


@pytest.fixture(scope="module")
def modules(image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grub")
    done = imgtools("copy-out", "-a", image("debian-plain"), "/usr/lib/grub/i386-pc", folder)
    assert done.code == 0, done.stderr
    return folder / "i386-pc"


def make(modules: Path, folder: Path, prefix: str, commands: str) -> bytes:
    """A core as grub-install makes it, by the maker's own program."""
    (folder / "load.cfg").write_text(commands)
    words = ["grub-mkimage", "-O", "i386-pc", "-d", modules, "-p", prefix, "-o", folder / "core"]
    words += ["-c", folder / "load.cfg", "biosdisk", "ext2", "lvm", "part_gpt", "search_fs_uuid"]
    subprocess.run(words, check=True)
    return (folder / "core").read_bytes()


def ids() -> list[Ids]:
    lvm, uuids = Ids(lvm=True), Ids()
    lvm.update({VG: VG[::-1]})
    uuids.update({UUID: UUID[::-1].replace("-", "", 4)})
    return [lvm, uuids]


def test_the_core_of_a_plain_partition_names_no_id(image: Callable[[str], Path]) -> None:
    core = imgtools("cat", "-a", image("debian-plain"), CORE).stdout
    text = core_text(core)
    assert text is not None
    assert b"(,gpt2)/boot/grub" in text
    for one in ids():
        looked = Guest(make_tree({CORE[1:]: core}))
        assert list(references(looked, one)) == []
        assert looked.warnings == []


@pytest.mark.parametrize(
    ("prefix", "commands", "which"),
    [
        (f"(lvmid/{dashed(VG)}/{dashed('x' * 32)})/boot/grub", "", 0),
        ("/boot/grub", f"search.fs_uuid {UUID} root hd0,gpt2\n", 1),
        ("(cryptouuid/x)", f"cryptomount -u {UUID.replace('-', '')}\n", 1),
    ],
)
def test_a_core_that_names_an_id_ends_the_run(
    prefix: str, commands: str, which: int, modules: Path, tmp_path: Path
) -> None:
    tree = make_tree({CORE[1:]: make(modules, tmp_path, prefix, commands)})
    with pytest.raises(GuestOperationError, match=r"core\.img: names an old id .* grub-install"):
        list(references(Guest(tree), ids()[which]))
    assert list(references(Guest(tree), ids()[1 - which])) == []


@pytest.mark.parametrize("cut", [0, 100, 520, 4000, -600])
def test_half_a_core_is_none(cut: int, modules: Path, tmp_path: Path) -> None:
    core = make(modules, tmp_path, "/boot/grub", "")
    assert core_text(core) is not None
    assert core_text(core[:cut]) is None
