"""Which references are followed, and which are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtools.errors import (
    ImageChainError,
    ImageError,
    ImageTruncatedError,
    UntrustedReferenceError,
    UsageError,
)
from imgtools.image.chain import resolve_disk
from imgtools.image.reference import resolve_reference
from imgtools.model.disks import Disk, DiskRequest
from imgtools.workflow.opening import resolve_disks

pytestmark = pytest.mark.unit

Build = Callable[..., Path]
DISK = bytes(510) + b"\x55\xaa" + bytes(512)


def resolve(path: Path, image_format: str | None = None, *, untrusted: bool = False) -> Disk:
    return resolve_disk(DiskRequest(path=path, format=image_format), untrusted=untrusted)


def formats(disk: Disk) -> list[tuple[str, str]]:
    return [(layer.path.name, layer.format) for layer in disk.layers]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        (b"base.img", "/i/base.img"),
        (b"../base.img", "/i/../base.img"),
        (b"./a:b", "/i/./a:b"),
        (b"/x/a:b", "/x/a:b"),
        (b"file:/x/a,b=c", "/x/a,b=c"),
        (b"file:///x", "///x"),
        (b"new\nline", "/i/new\nline"),
        (b"\xff", "/i/\udcff"),
    ],
)
def test_names_that_are_files(stored: bytes, path: str) -> None:
    assert os.fspath(resolve_reference(stored, Path("/i/o.qcow2"), "backing file")) == path.replace(
        "./a:b", "a:b"
    ).replace("///x", "/x")


@pytest.mark.parametrize(
    "stored",
    [
        b'json:{"driver":"raw","file":{"filename":"/etc/shadow"}}',
        b"nbd:localhost:10809",
        b"nbd+unix:///x?socket=/s",
        b"http://10.0.0.1/x",
        b"ssh://host/x",
        b"fat:rw:/etc",
        b"fd:3",
        b"HTTP://host/x",
    ],
)
def test_names_that_are_refused(stored: bytes) -> None:
    with pytest.raises(UntrustedReferenceError, match="not a plain file"):
        resolve_reference(stored, Path("/i/o.qcow2"), "backing file")


@pytest.mark.parametrize("stored", [b"a:b", b":b", b"file:rel", b"file://host/x", b"", b"a\0b"])
def test_names_without_sense(stored: bytes) -> None:
    with pytest.raises(ImageChainError):
        resolve_reference(stored, Path("/i/o.qcow2"), "backing file")


# --- formats -------------------------------------------------------------------------------------


def test_the_header_decides_when_nothing_is_stated(qcow2: Build) -> None:
    assert formats(resolve(qcow2("disk.img"))) == [("disk.img", "qcow2")]


def test_raw_stays_raw(qcow2: Build, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    path = qcow2("disk.img", backing=b"secret.txt")
    assert formats(resolve(path, "raw")) == [("disk.img", "raw")]
    assert formats(resolve(path.rename(tmp_path / "disk.RAW"))) == [("disk.RAW", "raw")]


def test_raw_in_disguise_shows_no_host_file(qcow2: Build, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(UntrustedReferenceError, match=r"secret\.txt is not a disk image"):
        resolve(qcow2("disk.img", backing=b"secret.txt"))


def test_a_stated_format_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(DISK)
    for name in ("qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "luks", "parallels"):
        with pytest.raises(ImageError):
            resolve(tmp_path / "disk", name)


def test_a_luks_container_is_a_raw_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"LUKS\xba\xbe\x00\x02" + bytes(4088))
    disk = resolve(tmp_path / "disk")
    assert formats(disk) == [("disk", "raw")]
    assert disk.virtual_size == 4096


# --- backing files -------------------------------------------------------------------------------


def test_chain_from_top_to_base(
    qcow2: Build, header_extension: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "base").write_bytes(DISK)
    qcow2("middle", backing=b"base", extensions=header_extension(0xE2792ACA, b"raw"))
    top = qcow2("sub/top", backing=b"../middle", extensions=header_extension(0xE2792ACA, b"qcow2"))
    disk = resolve(top)
    assert formats(disk) == [("top", "qcow2"), ("middle", "qcow2"), ("base", "raw")]
    assert all(layer.path.is_absolute() for layer in disk.layers)


def test_a_backing_format_of_raw_is_believed(
    qcow2: Build, header_extension: Callable[..., bytes]
) -> None:
    """A base that is stated raw stays raw, though a guest wrote a qcow2 header into it."""
    qcow2("base.img", backing=b"/etc/shadow")
    top = qcow2("top", backing=b"base.img", extensions=header_extension(0xE2792ACA, b"raw"))
    assert formats(resolve(top)) == [("top", "qcow2"), ("base.img", "raw")]


def test_a_base_called_raw_is_raw(qcow2: Build) -> None:
    qcow2("base.raw", backing=b"/etc/shadow")
    assert formats(resolve(qcow2("top", backing=b"base.raw")))[1:] == [("base.raw", "raw")]


@pytest.mark.parametrize("stated", [b"raw", None])
def test_a_host_file_is_no_base(
    qcow2: Build, header_extension: Callable[..., bytes], stated: bytes | None
) -> None:
    extensions = header_extension(0xE2792ACA, stated) if stated else b""
    with pytest.raises(UntrustedReferenceError, match="/etc/passwd is not a disk image"):
        resolve(qcow2(backing=b"/etc/passwd", extensions=extensions))


def test_the_hosts_swap_file_is_no_base(qcow2: Build, tmp_path: Path) -> None:
    """It holds the host's memory, and begins with zeros as a new disk does."""
    (tmp_path / "swapfile").write_bytes(bytes(4086) + b"SWAPSPACE2" + bytes(1 << 20))
    with pytest.raises(UntrustedReferenceError):
        resolve(qcow2(backing=b"swapfile"))


def test_an_empty_new_disk_is_a_base(qcow2: Build, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(bytes(1 << 20))
    assert formats(resolve(qcow2(backing=b"new")))[1] == ("new", "raw")


@pytest.mark.parametrize("name", [b"gone.qcow2", b".", b"pipe", b"/dev/zero"])
def test_members_that_cannot_be_read(qcow2: Build, tmp_path: Path, name: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageChainError, match=r"image\.qcow2: its backing file"):
        resolve(qcow2(backing=name))


def test_an_unknown_backing_format(qcow2: Build, header_extension: Callable[..., bytes]) -> None:
    with pytest.raises(ImageChainError, match="unknown format 'zip'"):
        resolve(qcow2(backing=b"b", extensions=header_extension(0xE2792ACA, b"zip")))


def test_a_damaged_base(qcow2: Build) -> None:
    qcow2("base", l1_offset=1 << 40)
    with pytest.raises(ImageTruncatedError, match="base: truncated"):
        resolve(qcow2("top", backing=b"base"))


def test_a_damaged_top_is_said_before_its_base_is_sought(qcow2: Build) -> None:
    with pytest.raises(ImageError, match="beyond what qcow2 can address"):
        resolve(qcow2(size=1 << 62, backing=b"gone"))


# --- loops ---------------------------------------------------------------------------------------


def test_an_image_that_backs_itself(qcow2: Build) -> None:
    with pytest.raises(ImageChainError, match="loop"):
        resolve(qcow2("self", backing=b"self"))


def test_a_cycle_of_two_by_links(qcow2: Build, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to("a")
    qcow2("b", backing=b"other")
    with pytest.raises(ImageChainError, match="loop"):
        resolve(qcow2("a", backing=b"b"))


def test_a_chain_that_is_too_long(qcow2: Build) -> None:
    for number in range(300):
        qcow2(f"{number}", backing=b"%d" % (number + 1))
    with pytest.raises(ImageChainError, match="more than 256"):
        resolve(qcow2("top", backing=b"0"))


# --- trust ---------------------------------------------------------------------------------------


def test_untrusted_stays_in_its_folder(qcow2: Build) -> None:
    qcow2("outside/base")
    qcow2("in/base")
    top = qcow2("in/top", backing=b"../outside/base")
    assert len(resolve(top).layers) == 2
    with pytest.raises(UntrustedReferenceError, match="outside the image's folder"):
        resolve(top, untrusted=True)
    assert len(resolve(qcow2("in/good", backing=b"base"), untrusted=True).layers) == 2


def test_untrusted_follows_no_link_out_of_its_folder(qcow2: Build, tmp_path: Path) -> None:
    qcow2("outside/base")
    top = qcow2("in/top", backing=b"link")
    (tmp_path / "in" / "link").symlink_to("../outside/base")
    with pytest.raises(UntrustedReferenceError):
        resolve(top, untrusted=True)


# --- data files and extents ----------------------------------------------------------------------


def test_data_file(qcow2: Build, header_extension: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DISK)
    good = qcow2(incompatible=4, extensions=header_extension(0x44415441, b"data"))
    assert resolve(good).layers[0].extents == (tmp_path / "data",)
    bad = qcow2("bad", incompatible=4, extensions=header_extension(0x44415441, b"/etc/passwd"))
    with pytest.raises(UntrustedReferenceError, match="external data file /etc/passwd"):
        resolve(bad)


def test_a_data_file_that_is_the_image(
    qcow2: Build, header_extension: Callable[..., bytes]
) -> None:
    path = qcow2("i.img", incompatible=4, extensions=header_extension(0x44415441, b"i.img"))
    with pytest.raises(ImageChainError, match="holds already"):
        resolve(path)


def _vmdk(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "disk.vmdk"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
        f'createType="twoGbMaxExtentFlat"\n{line}\n'
    )
    return path


def test_flat_extents(tmp_path: Path) -> None:
    (tmp_path / "disk-f001.vmdk").write_bytes(b"anything" * 128)
    disk = resolve(_vmdk(tmp_path, 'RW 2 FLAT "disk-f001.vmdk" 0'))
    assert disk.layers[0].extents == (tmp_path / "disk-f001.vmdk",)
    assert disk.virtual_size == 1024


@pytest.mark.parametrize(
    "line",
    [
        'RW 1 FLAT "/etc/passwd" 0',
        'RDONLY 1 FLAT "/etc/passwd" 0',
        'RW 1 VMFS "/etc/passwd"',
        'RW 4 FLAT "short.vmdk" 0',
        'RW 1 FLAT "short.vmdk" 2',
    ],
)
def test_extents_that_are_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "short.vmdk").write_bytes(bytes(1024))
    with pytest.raises(UntrustedReferenceError):
        resolve(_vmdk(tmp_path, line))


def test_an_extent_that_is_a_descriptor(tmp_path: Path) -> None:
    """It would name further files."""
    _vmdk(tmp_path, 'RW 1 FLAT "/etc/passwd" 0').rename(tmp_path / "inner.vmdk")
    with pytest.raises(UntrustedReferenceError):
        resolve(_vmdk(tmp_path, 'RW 1 SPARSE "inner.vmdk"'))


@pytest.mark.parametrize("line", ['RW 1 FLAT "/dev/zero" 0', 'RW 1 FLAT "gone.vmdk" 0'])
def test_extents_that_cannot_be_read(tmp_path: Path, line: str) -> None:
    with pytest.raises(ImageChainError):
        resolve(_vmdk(tmp_path, line))


# --- several disks -------------------------------------------------------------------------------


def test_the_same_image_twice(qcow2: Build, tmp_path: Path) -> None:
    path = qcow2("a")
    (tmp_path / "link").symlink_to("a")
    requests = [DiskRequest(path=path), DiskRequest(path=tmp_path / "link")]
    with pytest.raises(UsageError, match="named twice"):
        resolve_disks(requests, untrusted=False)


def test_remote_disks_are_left_alone() -> None:
    request = DiskRequest(uri="nbd://localhost/disk")
    assert resolve_disks([request], untrusted=False) == (
        Disk(request=request, uri="nbd://localhost/disk"),
    )
