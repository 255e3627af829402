"""Our reading of headers against qemu-img's, on images that qemu-img made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgtools.errors import EncryptedError
from imgtools.image.chain import resolve_disk
from imgtools.image.header import ImageHeader
from imgtools.image.vet import vet
from imgtools.model.disks import DiskRequest

pytestmark = pytest.mark.direct

SIZE = 48 << 20
LUKS = ["--object", "secret,id=s,data=x"]


def qemu_img(*words: object) -> str:
    """Run the real qemu-img."""
    argv = ["qemu-img", *map(str, words)]
    for _ in range(10):
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        # Its key derivation measures CPU time, and gives up now and then on a busy machine.
        if "CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Recipe:
    """One image: its format and the creation options; ``variant`` as `ImageHeader` names it."""

    format: str
    options: str = ""
    variant: str | None = None
    convert: bool = False

    def __str__(self) -> str:
        parts = [self.format, self.options, "converted" if self.convert else ""]
        return "-".join(filter(None, parts))

    def make(self, folder: Path) -> Path:
        path = folder / f"image.{self.format}"
        options = ["-o", self.options] if self.options else []
        if self.convert:
            source = folder / "source.raw"
            with source.open("wb") as stream:
                stream.truncate(SIZE)
                stream.seek(5 << 20)
                stream.write(bytes(range(256)) * 4096)
            compress = ["-c"] if self.format == "qcow2" else []
            qemu_img("convert", *compress, "-f", "raw", "-O", self.format, *options, source, path)
            source.unlink()
        else:
            secret = LUKS if "luks" in str(self) else []
            qemu_img("create", "-q", *secret, "-f", self.format, *options, path, SIZE)
        return path


ENCRYPT = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
RECIPES = [
    Recipe("raw"),
    Recipe("qcow2", variant="compat 1.1"),
    Recipe("qcow2", "compat=0.10", variant="compat 0.10"),
    Recipe("qcow2", "cluster_size=512"),
    Recipe("qcow2", "cluster_size=2M,lazy_refcounts=on,refcount_bits=1"),
    Recipe("qcow2", "cluster_size=512,preallocation=metadata"),
    Recipe("qcow2", "preallocation=metadata"),
    Recipe("qcow2", "preallocation=full"),
    Recipe("qcow2", "extended_l2=on,cluster_size=128k"),
    Recipe("qcow2", "extended_l2=on,preallocation=metadata"),
    Recipe("qcow2", ENCRYPT),
    Recipe("qcow2", convert=True),
    Recipe("qcow2", "compression_type=zstd", convert=True),
    Recipe("qcow"),
    Recipe("qcow", convert=True),
    Recipe("qed"),
    Recipe("qed", "cluster_size=128k,table_size=2"),
    Recipe("vdi", variant="dynamic"),
    Recipe("vdi", "static=on", variant="static"),
    Recipe("vdi", convert=True),
    Recipe("vpc", variant="dynamic"),
    Recipe("vpc", "force_size=on", variant="dynamic"),
    Recipe("vpc", "subformat=fixed", variant="fixed"),
    Recipe("vpc", "subformat=fixed,force_size=on", variant="fixed"),
    Recipe("vpc", convert=True),
    Recipe("vhdx", variant="dynamic"),
    Recipe("vhdx", "subformat=fixed", variant="fixed"),
    Recipe("vhdx", "block_size=1M", convert=True),
    Recipe("parallels"),
    Recipe("parallels", convert=True),
    Recipe("luks", "key-secret=s,iter-time=10"),
    Recipe("vmdk", variant="monolithicSparse"),
    Recipe("vmdk", "subformat=monolithicFlat", variant="monolithicFlat"),
    Recipe("vmdk", "subformat=twoGbMaxExtentSparse", variant="twoGbMaxExtentSparse"),
    Recipe("vmdk", "subformat=twoGbMaxExtentFlat", variant="twoGbMaxExtentFlat"),
    Recipe("vmdk", convert=True, variant="monolithicSparse"),
    Recipe("vmdk", "subformat=streamOptimized", convert=True, variant="streamOptimized"),
    Recipe("vmdk", "compat6=on"),
]


def facts_of(path: Path, image_format: str) -> dict[str, object]:
    facts = json.loads(qemu_img("info", "--output=json", "-f", image_format, path))
    assert isinstance(facts, dict)
    return facts


def assert_same(header: ImageHeader, facts: dict[str, object]) -> None:
    assert header.fatal is None
    assert header.format == facts["format"]
    assert header.virtual_size == facts["virtual-size"]
    assert header.dirty == facts.get("dirty-flag", False)
    backing = header.backing_file
    assert (None if backing is None else backing.decode()) == facts.get("backing-filename")
    assert header.backing_format == facts.get("backing-filename-format")
    assert header.encrypted == facts.get("encrypted", False)
    # qemu-img takes a split VMDK's from its extents, and says none for Parallels.
    if not header.extents and header.format != "parallels":
        assert header.cluster_size == facts.get("cluster-size")


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_same_as_qemu_img(tmp_path: Path, recipe: Recipe) -> None:
    path = recipe.make(tmp_path)
    header = vet(path)
    assert_same(header, facts_of(path, recipe.format))
    assert header.problems == ()
    assert header.stated == (recipe.format == "raw")
    if recipe.variant is not None:
        assert header.variant == recipe.variant
    if recipe.options == ENCRYPT:
        with pytest.raises(EncryptedError):
            resolve_disk(DiskRequest(path=path), untrusted=True)
        return
    disk = resolve_disk(DiskRequest(path=path), untrusted=True)
    kind = "raw" if recipe.format == "luks" else recipe.format
    assert [layer.format for layer in disk.layers] == [kind]
    assert len(disk.layers[0].extents) == len(header.extents)


@pytest.mark.parametrize("image_format", ["qcow2", "qcow", "qed", "vmdk"])
@pytest.mark.parametrize("backing", ["raw", "same"])
def test_backing_file(tmp_path: Path, image_format: str, backing: str) -> None:
    kind = image_format if backing == "same" else "raw"
    if image_format == "vmdk" and kind == "raw":
        kind = "vmdk"  # a VMDK rests on nothing else
    base, top = tmp_path / "the base.img", tmp_path / "top"
    qemu_img("create", "-q", "-f", kind, base, SIZE)
    qemu_img("create", "-q", "-f", image_format, "-b", base.name, "-F", kind, top)
    assert_same(vet(top), facts_of(top, image_format))
    disk = resolve_disk(DiskRequest(path=top), untrusted=True)
    assert [layer.path for layer in disk.layers] == [top, base]
    assert [layer.format for layer in disk.layers] == [image_format, kind]


def test_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    for name in ("first", "second one", "dritter ü"):
        qemu_img("snapshot", "-c", name, path)
    facts = facts_of(path, "qcow2")
    snapshots = facts["snapshots"]
    assert isinstance(snapshots, list)
    assert [
        (snapshot.id, snapshot.name, snapshot.date_seconds, snapshot.vm_state_size)
        for snapshot in vet(path).snapshots
    ] == [(s["id"], s["name"], s["date-sec"], s["vm-state-size"]) for s in snapshots]
    assert [snapshot.virtual_size for snapshot in vet(path).snapshots] == [SIZE] * 3


def test_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    qemu_img("bitmap", "--add", "-g", "128k", path, "one")
    qemu_img("bitmap", "--add", "--disable", path, "the other")
    data = facts_of(path, "qcow2")["format-specific"]
    assert isinstance(data, dict)
    assert [
        {"name": bitmap.name, "granularity": bitmap.granularity, "flags": list(bitmap.flags)}
        for bitmap in vet(path).bitmaps
    ] == data["data"]["bitmaps"]


@pytest.mark.parametrize("raw", ["off", "on"])
def test_data_file(tmp_path: Path, raw: str) -> None:
    path = tmp_path / "image.qcow2"
    options = f"data_file={tmp_path}/data.raw,data_file_raw={raw}"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, SIZE)
    header = vet(path)
    data = facts_of(path, "qcow2")["format-specific"]
    assert isinstance(data, dict)
    assert header.data_file is not None
    assert header.data_file.decode() == data["data"]["data-file"]
    assert header.data_file_raw == data["data"]["data-file-raw"]
    disk = resolve_disk(DiskRequest(path=path), untrusted=True)
    assert disk.layers[0].extents == (tmp_path / "data.raw",)


def test_a_full_qcow2_cut_short(tmp_path: Path) -> None:
    path = Recipe("qcow2", convert=True).make(tmp_path)
    whole = path.stat().st_size
    assert vet(path).fatal is None
    for cut in (5 * 65536, whole - 65536, whole // 2):
        with path.open("r+b") as stream:
            stream.truncate(cut)
        assert vet(path).fatal is not None, f"cut to {cut} of {whole}"


CUT: list[tuple[str, Callable[[int], int]]] = [
    ("vdi", lambda size: size - (1 << 20)),
    ("vpc", lambda size: size - (1 << 20)),
    ("vmdk", lambda _: 1 << 16),
    ("qed", lambda _: 1 << 16),
    ("vhdx", lambda _: 1 << 20),
    ("parallels", lambda _: 64),
]


@pytest.mark.parametrize(("image_format", "cut"), CUT, ids=[name for name, _ in CUT])
def test_others_cut_short(tmp_path: Path, image_format: str, cut: Callable[[int], int]) -> None:
    path = Recipe(image_format, convert=True).make(tmp_path)
    with path.open("r+b") as stream:
        stream.truncate(cut(path.stat().st_size))
    assert vet(path).fatal is not None
