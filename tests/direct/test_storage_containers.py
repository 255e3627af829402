"""Every container format and backing chain, against what qemu-img converts them to."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from imgtools.direct.disk import open_disk
from imgtools.errors import DamagedError, DirectUnsupportedError, UncleanError
from imgtools.image.chain import resolve_disk
from imgtools.model.disks import Disk, DiskRequest, ImageLayer

pytestmark = pytest.mark.direct

MIB = 1 << 20
SIZE = 40 * MIB + 3584


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse disk with data at odd places, also in its last, partial cluster."""
    path = tmp_path_factory.mktemp("containers") / "base.raw"
    generator = random.Random(5)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for index in range(60):
            file.seek(generator.randrange(SIZE // 512) * 512)
            length = generator.choice([512, 4096, 69_632, 1_228_800])
            file.write(generator.randbytes(length) if index % 2 else bytes([index]) * length)
        file.truncate(SIZE)
        file.seek(40 * MIB)
        file.write(generator.randbytes(3584))
    return path


def opened(path: Path) -> Disk:
    return resolve_disk(DiskRequest(path=path), untrusted=False)


def assert_same(path: Path, expected: bytes) -> None:
    with open_disk(opened(path)) as stream:
        assert stream.size == -(-len(expected) // 512) * 512
        assert stream.read_at(0, stream.size) == expected
        generator = random.Random(1)
        for _ in range(200):
            offset = generator.randrange(len(expected))
            length = generator.choice([1, 511, 4096, 65_537, 2 * MIB + 1])
            assert stream.read_at(offset, length) == expected[offset : offset + length]


FORMATS = {
    "qcow2": "-O qcow2",
    "qcow2-v2": "-O qcow2 -o compat=0.10",
    "qcow2-zlib": "-c -O qcow2",
    "qcow2-zstd": "-c -O qcow2 -o compression_type=zstd",
    "qcow2-extended": "-O qcow2 -o extended_l2=on,cluster_size=128k",
    "qcow2-512": "-O qcow2 -o cluster_size=512",
    "qcow2-2M": "-O qcow2 -o cluster_size=2M",
    "qcow2-preallocated": "-O qcow2 -o preallocation=metadata",
    "vmdk": "-O vmdk",
    "vmdk-stream": "-O vmdk -o subformat=streamOptimized",
    "vmdk-flat": "-O vmdk -o subformat=monolithicFlat",
    "vmdk-split": "-O vmdk -o subformat=twoGbMaxExtentSparse",
    "vmdk-split-flat": "-O vmdk -o subformat=twoGbMaxExtentFlat",
    "vdi": "-O vdi",
    "vdi-static": "-O vdi -o static=on",
    "vpc": "-O vpc -o force_size",
    "vpc-fixed": "-O vpc -o subformat=fixed,force_size",
    "vhdx": "-O vhdx",
    "vhdx-fixed": "-O vhdx -o subformat=fixed",
    "vhdx-2M": "-O vhdx -o block_size=2M",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_converted_disk_reads_as_the_original(name: str, raw: Path, tmp_path: Path) -> None:
    image = tmp_path / f"disk.{name.split('-', maxsplit=1)[0]}"
    run("qemu-img", "convert", "-f", "raw", *FORMATS[name].split(), raw, image)
    assert_same(image, raw.read_bytes())


def scribble(image: Path, seed: int, size: int) -> None:
    """Write, zero and discard here and there, as a guest would."""
    generator = random.Random(seed)
    commands = []
    for index in range(60):
        offset = generator.randrange(size // 512) * 512
        length = min(generator.choice([512, 4096, 70_144, 204_800]), size - offset)
        action = generator.choice([f"write -P {index + 1}", "write -z", "discard"])
        commands += ["-c", f"{action} {offset} {length}"]
    run("qemu-io", "-f", "qcow2", *commands, image)


def test_a_chain_of_overlays_larger_and_smaller_than_what_they_rest_on(
    raw: Path, tmp_path: Path
) -> None:
    layers = [("46M", ""), ("38M", "extended_l2=on"), ("50M", "cluster_size=4k")]
    below, kind = raw, "raw"
    for index, (size, options) in enumerate(layers):
        overlay = tmp_path / f"{index}.qcow2"
        extra = ["-o", options] if options else []
        run("qemu-img", "create", "-f", "qcow2", "-F", kind, "-b", below, *extra, overlay, size)
        scribble(overlay, index, int(size[:-1]) * MIB)
        below, kind = overlay, "qcow2"
        flat = tmp_path / "flat.raw"
        run("qemu-img", "convert", "-O", "raw", overlay, flat)
        assert_same(overlay, flat.read_bytes())


# --- damage -------------------------------------------------------------------------------------


def qcow2(tmp_path: Path, raw: Path, *options: str) -> bytearray:
    image = tmp_path / "x.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, image)
    return bytearray(image.read_bytes())


def layer(tmp_path: Path, content: bytes, kind: str = "qcow2", size: int = SIZE) -> Disk:
    """A disk past vet's gate: the engine must stand on its own."""
    path = tmp_path / "hostile"
    path.write_bytes(content)
    return Disk(
        request=DiskRequest(path=path),
        layers=(ImageLayer(path=path, format=kind, virtual_size=size),),
    )


def read_all(disk: Disk) -> bytes:
    with open_disk(disk) as stream:
        return stream.read_at(0, stream.size)


def l2_offset(image: bytearray) -> int:
    (l1,) = struct.unpack_from(">Q", image, 40)
    return int(struct.unpack_from(">Q", image, l1)[0] & 0x00FFFFFFFFFFFE00)


@pytest.mark.parametrize("entry", [1 << 50, 0x10200, 1 << 40 | 1 << 63])
def test_a_data_cluster_outside_the_file_is_damage(entry: int, raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw)
    struct.pack_into(">Q", image, l2_offset(image), entry)
    with pytest.raises(DamagedError, match="outside the image"):
        read_all(layer(tmp_path, image))


@pytest.mark.parametrize("entry", [1 << 50, 0x10200])
def test_an_l2_table_outside_the_file_is_damage(entry: int, raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw)
    struct.pack_into(">Q", image, struct.unpack_from(">Q", image, 40)[0], entry)
    with pytest.raises(DamagedError, match="outside the image"):
        read_all(layer(tmp_path, image))


def test_an_l1_table_outside_the_file_is_damage(raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw)
    struct.pack_into(">Q", image, 40, 1 << 40)
    with pytest.raises(DamagedError):
        read_all(layer(tmp_path, image))


def test_a_truncated_image_is_damage(raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw)
    with pytest.raises(DamagedError):
        read_all(layer(tmp_path, image[: len(image) // 2 // 65536 * 65536]))


def test_a_damaged_compressed_cluster_is_damage(raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw, "-c")
    offset = next(
        word & (1 << 54) - 1
        for (word,) in struct.iter_unpack(">Q", image[l2_offset(image) :][:65536])
        if word >> 62 & 1
    )
    image[offset : offset + 100] = os.urandom(100)
    with pytest.raises(DamagedError):
        read_all(layer(tmp_path, image))


@pytest.mark.parametrize(
    ("bit", "error"),
    [(1, UncleanError), (2, DirectUnsupportedError), (7, DirectUnsupportedError)],
)
def test_features_that_are_not_ours(
    bit: int, error: type[Exception], raw: Path, tmp_path: Path
) -> None:
    image = qcow2(tmp_path, raw)
    struct.pack_into(">Q", image, 72, 1 << bit)
    with pytest.raises(error):
        read_all(layer(tmp_path, image))


def test_the_dirty_bit_alone_harms_no_reader(raw: Path, tmp_path: Path) -> None:
    image = qcow2(tmp_path, raw)
    struct.pack_into(">Q", image, 72, 1)
    assert read_all(layer(tmp_path, image)) == raw.read_bytes()


def test_names_in_the_header_are_never_followed(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * SIZE)
    image = tmp_path / "x.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret", image)
    assert not any(read_all(layer(tmp_path, image.read_bytes())))


def test_a_raw_backing_file_that_looks_like_qcow2_stays_raw(raw: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    content = bytes(qcow2(tmp_path, raw))
    content = content[: len(content) // 512 * 512]
    base.write_bytes(content)
    overlay = tmp_path / "over.qcow2"
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", base, overlay)
    disk = Disk(
        request=DiskRequest(path=overlay),
        layers=(
            ImageLayer(path=overlay, format="qcow2", virtual_size=len(content)),
            ImageLayer(path=base, format="raw", virtual_size=len(content)),
        ),
    )
    assert read_all(disk) == content


@pytest.mark.parametrize("kind", ["qed", "qcow", "parallels"])
def test_formats_without_a_parser_are_left_to_the_appliance(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DirectUnsupportedError):
        open_disk(layer(tmp_path, bytes(4096), kind))


def test_remote_disks_are_left_to_the_appliance() -> None:
    request = DiskRequest(uri="nbd://localhost/x")
    with pytest.raises(DirectUnsupportedError):
        open_disk(Disk(request=request, uri=request.uri))


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_flipped_bytes_end_in_our_errors(kind: str, raw: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.raw"
    small.write_bytes(raw.read_bytes()[: 4 * MIB])
    image = tmp_path / "x"
    run("qemu-img", "convert", "-f", "raw", "-O", kind, small, image)
    good = image.read_bytes()
    generator = random.Random(kind)
    for _ in range(40):
        broken = bytearray(good)
        for _ in range(generator.choice([1, 3, 30])):
            broken[generator.randrange(min(len(broken), 400_000))] = generator.randrange(256)
        try:
            read_all(layer(tmp_path, bytes(broken), kind, 4 * MIB))
        except (DamagedError, DirectUnsupportedError, UncleanError):
            continue
