"""Which filesystems hold an operating system, and which are only copies of one."""

from __future__ import annotations

from typing import Any

import pytest

from imgtools.errors import DirectUnsupportedError, NoGuestError, SeveralGuestsError
from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.linux.roots import kind_of_root
from imgtools.guest.opening import Session
from imgtools.guest.roots import open_guest_tree
from imgtools.model.engine import EngineName
from imgtools.model.files import FileTree
from imgtools.model.foreign import ForeignGuest
from imgtools.model.storage import BlockDevice, LuksVolume, Storage
from tests.unit.guest.guests import DEBIAN, Files, MemoryEngine, filesystem, guest_tree, session_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (DEBIAN, "linux"),
        ({"etc/fstab": b"", "bin/": None}, "linux"),
        ({"etc/hosts": b"", "bin": "usr/bin"}, "linux"),
        ({"etc/os-release": "../usr/lib/os-release", "bin": "/usr/bin"}, "linux"),
        ({"etc/fstab": b""}, ""),
        ({"grub/grub.cfg": b"", "vmlinuz": b""}, ""),
        ({**DEBIAN, "grub2/grub.cfg": b""}, ""),
        ({"bin/": None, "lib/": None, "share/": None}, ""),
        ({"etc/freebsd-update.conf": b"", "etc/fstab": b"", "bin/": None}, "freebsd"),
        ({"netbsd": b"", "etc/release": b"", "etc/fstab": b"", "bin/": None}, "netbsd"),
        ({"bsd": b"", "etc/motd": b"", "etc/fstab": b"", "bin/": None}, "openbsd"),
        ({"hurd/console": b"", "hurd/hello": b"", "hurd/null": b""}, "hurd"),
        ({"service/vm": b"", "etc/version": b"", "etc/fstab": b"", "bin/": None}, "minix"),
        ({"Windows/System32/Config/SOFTWARE": b""}, "windows"),
        ({"WINDOWS/system32/config/": None}, "windows"),
        ({"FDOS/FREEDOS.BSS": b""}, "dos"),
        ({"dos/command.com": b""}, "dos"),
        ({"EFI/debian/shimx64.efi": b""}, ""),
        ({}, ""),
    ],
)
def test_kind_of_root(files: Files, kind: str) -> None:
    assert kind_of_root(guest_tree(files)) == kind


def btrfs(*volumes: str) -> Storage:
    listed = dict.fromkeys(("/dev/sda1", *volumes))
    return Storage(
        devices=(BlockDevice(name="/dev/sda", size=1, disk=0),),
        filesystems=tuple(filesystem(v, "btrfs", uuid="b") for v in listed),
    )


def root_of(fstab: str, **files: bytes) -> dict[str, bytes | str | None]:
    return {**DEBIAN, "etc/fstab": fstab.encode(), **files}


def test_several_systems_are_all_reported_in_device_order() -> None:
    other = {**DEBIAN, "etc/hostname": b"second\n", "etc/fstab": b"/dev/sda2 / ext4 rw\n"}
    session, _ = session_of({"/dev/sda1": DEBIAN, "/dev/sda2": other})
    assert [g.hostname for g in inspect_guests(session)] == ["lemon", "second"]
    with pytest.raises(SeveralGuestsError, match="/dev/sda1, /dev/sda2"):
        open_guest_tree(session)


def test_snapshots_are_not_systems_by_their_own_fstab() -> None:
    files = root_of("UUID=b / btrfs subvol=@ 0 0\n")
    volumes = ("/dev/sda1", "btrfsvol:/dev/sda1/@", "btrfsvol:/dev/sda1/@before-upgrade")
    session, _ = session_of(
        {"/dev/sda1": {"@/": None}, volumes[1]: files, volumes[2]: files}, btrfs(*volumes)
    )
    (found,) = inspect_guests(session)
    assert found.root == "btrfsvol:/dev/sda1/@"
    assert found.snapshots == ("btrfsvol:/dev/sda1/@before-upgrade",)
    assert open_guest_tree(session).read(b"/etc/hostname", limit=99) == b"lemon\n"


def test_snapshots_of_a_default_subvolume() -> None:
    files = root_of("UUID=b / btrfs defaults 0 0\nUUID=b /home btrfs subvol=/@/home 0 0\n")
    snapshot = "btrfsvol:/dev/sda1/@/.snapshots/2/snapshot"
    volumes = ("/dev/sda1", snapshot, "btrfsvol:/dev/sda1/@/home")
    session, _ = session_of(
        {"/dev/sda1": files, snapshot: files, volumes[2]: {"user/": None}}, btrfs(*volumes)
    )
    (found,) = inspect_guests(session)
    assert (found.root, found.snapshots) == ("/dev/sda1", (snapshot,))
    assert [(m.path, m.device) for m in found.mountpoints] == [
        ("/", "/dev/sda1"),
        ("/home", "btrfsvol:/dev/sda1/@/home"),
    ]


def test_snapshots_without_fstab_by_path_and_machine_id() -> None:
    files = root_of("", **{"etc/machine-id": b"0" * 32})
    stranger = root_of("", **{"etc/machine-id": b"f" * 32})
    volumes = [f"btrfsvol:/dev/sda1/{n}" for n in ("@", ".snapshots/1/snapshot", "snapshots/x")]
    trees = {volumes[0]: files, volumes[1]: files, volumes[2]: stranger, "/dev/sda1": {}}
    session, _ = session_of(trees, btrfs(*volumes))
    found = inspect_guests(session)
    assert [(g.root, g.snapshots) for g in found] == [
        (volumes[0], (volumes[1],)),
        (volumes[2], ()),
    ]


def test_two_systems_on_one_btrfs_are_two() -> None:
    volumes = ("btrfsvol:/dev/sda1/one", "btrfsvol:/dev/sda1/two")
    trees = {v: root_of(f"UUID=b / btrfs subvol={v[-3:]}\n") for v in volumes}
    trees["/dev/sda1"] = {}
    session, _ = session_of(trees, btrfs(*volumes))
    assert [g.root for g in inspect_guests(session)] == list(volumes)


def test_fstabs_that_name_each_other_leave_one() -> None:
    volumes = ("btrfsvol:/dev/sda1/one", "btrfsvol:/dev/sda1/two")
    trees = {
        volumes[0]: root_of("UUID=b / btrfs subvol=two\n"),
        volumes[1]: root_of("UUID=b / btrfs subvol=one\n"),
        "/dev/sda1": {},
    }
    session, _ = session_of(trees, btrfs(*volumes))
    (found,) = inspect_guests(session)
    assert (found.root, found.snapshots) == (volumes[0], (volumes[1],))


class DirectMemoryEngine(MemoryEngine):
    name: EngineName = "direct"


def direct_session(trees: dict[str, Files]) -> Session:
    session, engine = session_of(trees)
    return Session(engine=DirectMemoryEngine(trees, engine.storage()), disks=(), name=session.name)


WINDOWS: Files = {"Windows/System32/config/SYSTEM": b""}


def test_the_direct_engine_leaves_windows_to_the_appliance() -> None:
    session = direct_session({"/dev/sda1": DEBIAN, "/dev/sda2": WINDOWS})
    with pytest.raises(DirectUnsupportedError, match="windows"):
        inspect_guests(session)
    # Asked for by name, it tells what it can.
    found = inspect_guests(session, tolerant=True)
    assert [(g.type, g.distro) for g in found] == [("linux", "debian"), ("windows", "")]
    assert {w.code for w in session.warnings} == {"inspect.foreign"}


class ForeignEngine(MemoryEngine):
    """An engine that libguestfs answers through; asking it unmounts everything."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.mounted: list[str] = []

    def mount(self, device: str) -> FileTree:
        self.mounted.append(device)
        return super().mount(device)

    def inspect_foreign(self) -> list[ForeignGuest]:
        self.mounted.clear()
        return [
            ForeignGuest(
                root="/dev/sda2",
                type="windows",
                distro="windows",
                product_name="Windows 10",
                major=10,
                mountpoints=(("/", "/dev/sda2"),),
                filesystems=("/dev/sda2",),
                drive_mappings=(("D", "/dev/sda3"), ("C", "/dev/sda2")),
                windows_systemroot="/Windows",
            )
        ]


def test_windows_through_libguestfs_beside_linux() -> None:
    trees: dict[str, Files] = {"/dev/sda1": DEBIAN, "/dev/sda2": WINDOWS}
    _, engine = session_of(trees)
    foreign = ForeignEngine(trees, engine.storage())
    session = Session(engine=foreign, disks=(), name="dual")
    linux, windows = inspect_guests(session)
    assert linux.hostname == "lemon"
    assert foreign.mounted == ["/dev/sda1"]  # mounted again after libguestfs had its way
    assert (windows.root, windows.product_name, windows.major_version) == (
        "/dev/sda2",
        "Windows 10",
        10,
    )
    assert windows.windows is not None
    assert windows.windows.drive_mappings == (("C", "/dev/sda2"), ("D", "/dev/sda3"))
    assert [f.type for f in windows.filesystems] == ["ext4"]


def test_no_system_says_so_and_names_the_encrypted_volume() -> None:
    session, _ = session_of({"/dev/sda1": {"data": b""}})
    with pytest.raises(NoGuestError, match="no operating system"):
        open_guest_tree(session)
    locked = Storage(luks=(LuksVolume(device="/dev/sda2", uuid="u", version=2),))
    session, _ = session_of({}, locked)
    with pytest.raises(NoGuestError, match="/dev/sda2 is encrypted") as caught:
        open_guest_tree(session)
    assert caught.value.hint == "--key /dev/sda2:file:NAME"


def test_a_filesystem_that_does_not_mount_costs_only_itself() -> None:
    session, _ = session_of(
        {"/dev/sda1": DEBIAN},
        Storage(filesystems=(filesystem("/dev/sda9"), filesystem("/dev/sda1"))),
    )
    (found,) = inspect_guests(session)
    assert found.root == "/dev/sda1"
    assert [w.code for w in session.warnings] == ["inspect.filesystem"]
