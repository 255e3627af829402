"""The block nodes that pin what qemu opens, the preflight's rules and the translation of errors."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from imgtools.appliance.library import CallError
from imgtools.appliance.overlay import chain_node
from imgtools.appliance.preflight import check_folder, check_kernel, places
from imgtools.appliance.remote import remote_node, shown
from imgtools.appliance.translate import guest_error, launch_error, mount_reason
from imgtools.errors import (
    ApplianceError,
    ApplianceKernelError,
    ApplianceSpaceError,
    GuestFileNotFoundError,
    GuestOperationError,
    ImageUnsupportedError,
    UsageError,
)
from imgtools.model.disks import Disk, DiskRequest, ImageLayer

pytestmark = pytest.mark.unit


def layered(folder: Path, *kinds: str, extents: tuple[Path, ...] = ()) -> Disk:
    layers = []
    for number, kind in enumerate(kinds):
        path = folder / f"{number}.{kind}"
        path.touch()
        layers.append(ImageLayer(path=path, format=kind, virtual_size=512, extents=extents))
    return Disk(request=DiskRequest(path=layers[0].path), layers=tuple(layers))


def remote(uri: str, image_format: str | None = None) -> Disk:
    return Disk(request=DiskRequest(uri=uri, format=image_format), uri=uri)


def test_every_layer_is_pinned_and_the_base_has_no_backing(tmp_path: Path) -> None:
    node = chain_node(layered(tmp_path, "qcow2", "vmdk", "raw"), tmp_path)
    kinds = []
    while node is not None:
        kinds.append(node["driver"])
        assert node["read-only"] is True
        file = node["file"]
        assert (file["driver"], file["locking"], file["read-only"]) == ("file", "off", True)
        node = node.get("backing")
    assert kinds == ["qcow2", "vmdk", "raw"]
    assert chain_node(layered(tmp_path, "qcow2"), tmp_path)["backing"] is None


def test_a_data_file_is_pinned(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.touch()
    node = chain_node(layered(tmp_path, "qcow2", extents=(data,)), tmp_path)
    assert node["data-file"]["filename"] == str(data)


def test_a_vmdk_keeps_to_the_schema_of_blockdev(tmp_path: Path) -> None:
    extent = tmp_path / "extent"
    extent.touch()
    node = chain_node(layered(tmp_path, "vmdk", extents=(extent, extent)), tmp_path)
    assert set(node) == {"driver", "read-only", "file", "backing"}


def test_a_name_that_is_not_utf8_gets_an_alias(tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/bad\udcff")
    path.write_bytes(b"content")
    layer = ImageLayer(path=path, format="raw", virtual_size=7)
    node = chain_node(Disk(request=DiskRequest(path=path), layers=(layer,)), tmp_path)
    alias = Path(node["file"]["filename"])
    assert alias.read_bytes() == b"content"
    str(alias).encode("utf-8")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "nbd://host/export",
            {
                "driver": "nbd",
                "server": {"type": "inet", "host": "host", "port": "10809"},
                "export": "export",
            },
        ),
        (
            "nbd+unix:///?socket=/run/s",
            {"driver": "nbd", "server": {"type": "unix", "path": "/run/s"}},
        ),
        (
            "ssh://me@host:23/disk.img",
            {
                "driver": "ssh",
                "server": {"host": "host", "port": "23"},
                "path": "/disk.img",
                "user": "me",
            },
        ),
        ("https://host/a.img", {"driver": "https", "url": "https://host/a.img"}),
    ],
)
def test_remote_disks(uri: str, expected: dict[str, object], tmp_path: Path) -> None:
    node = remote_node(remote(uri), tmp_path)
    assert (node["driver"], node["read-only"]) == ("raw", True)
    assert node["file"] == {**expected, "read-only": True}


@pytest.mark.parametrize(
    ("uri", "image_format", "error"),
    [
        ("nbd+unix:///export", None, UsageError),
        ("nbd://host:port/", None, UsageError),
        ("ssh:///path", None, UsageError),
        ("tftp://host/a", None, ImageUnsupportedError),
        ("https://host/a.vmdk", None, ImageUnsupportedError),
        ("https://host/a", "vdi", ImageUnsupportedError),
    ],
)
def test_remote_disks_refused(
    uri: str, image_format: str | None, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        remote_node(remote(uri, image_format), tmp_path)


def test_a_password_is_never_shown() -> None:
    assert shown("https://me:pass@host/a") == "https://me:***@host/a"


# --- preflight -------------------------------------------------------------------------------


def test_the_newest_kernel_with_modules_is_taken(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    boot.mkdir()
    for version in ("6.1.0-9", "6.1.0-10", "6.2.0"):
        (boot / f"vmlinuz-{version}").touch()
    for version in ("6.1.0-9", "6.1.0-10"):
        (modules / version).mkdir(parents=True)
    assert check_kernel({}, boot=boot, modules=modules).name == "vmlinuz-6.1.0-10"


def test_no_kernel_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(ApplianceKernelError, match="no kernel") as caught:
        check_kernel({}, boot=tmp_path, modules=tmp_path / "none")
    assert "apt-get install --no-install-recommends linux-image" in (caught.value.hint or "")


def test_the_users_own_kernel_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ApplianceKernelError, match="SUPERMIN_KERNEL"):
        check_kernel({"SUPERMIN_KERNEL": str(tmp_path / "none")})


def test_folders_follow_libguestfs() -> None:
    assert str(places({}).temporary) == "/tmp"
    assert str(places({}).cache) == "/var/tmp"
    assert str(places({"TMPDIR": "/a"}).cache) == "/a"
    both = places({"TMPDIR": "/a", "LIBGUESTFS_TMPDIR": "/b", "LIBGUESTFS_CACHEDIR": "/c"})
    assert (str(both.temporary), str(both.cache)) == ("/b", "/c")


def test_a_folder_without_room_names_the_variable(tmp_path: Path) -> None:
    assert check_folder(tmp_path, 0, "TMPDIR") > 0
    for folder, needed in ((tmp_path, 1 << 70), (tmp_path / "none", 0)):
        with pytest.raises(ApplianceSpaceError) as caught:
            check_folder(folder, needed, "TMPDIR")
        assert "TMPDIR" in (caught.value.hint or "")


# --- translation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "error", "text"),
    [
        (b"supermin: failed to find a suitable kernel (host_cpu=x86_64).", ApplianceKernelError,
         "suitable kernel"),
        (b"cp: cannot open '/boot/vmlinuz-6': Permission denied", ApplianceKernelError, "vmlinuz"),
        (b"write: No space left on device", ApplianceSpaceError, "No space"),
        (b"noise\nqemu: kvm_buf_set_msrs: Assertion failed.\nmore", ApplianceError, "kvm_buf"),
        (b"\xff\xfe\x00", ApplianceError, "guestfs_launch failed"),
        (b"", ApplianceError, "guestfs_launch failed"),
    ],
)  # fmt: skip
def test_a_failed_launch_is_one_line(log: bytes, error: type[ApplianceError], text: str) -> None:
    found = launch_error("guestfs_launch failed.\nThis usually means ...\n", [log])
    assert type(found) is error
    assert text in found.message
    assert "\n" not in found.message
    assert found.hint


def test_errors_of_the_guest_have_their_class() -> None:
    assert isinstance(guest_error(CallError("x", errno.ENOENT), b"/a"), GuestFileNotFoundError)
    other = guest_error(CallError("pread: /imgtools0/a: Input/output error", errno.EIO), b"/a\xff")
    assert type(other) is GuestOperationError
    assert "\n" not in other.message


def test_the_kernels_reason_for_a_mount() -> None:
    message = "mount_options: mount exited with status 32: mount: /sysroot/x: File exists.\n more"
    assert mount_reason(message) == "File exists."
