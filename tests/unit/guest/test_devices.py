"""fstab lines and the devices they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.inspecting import inspect_guests
from imgtools.guest.linux.devices import Devices, split_mapper_name
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.fstab import (
    CryptEntry,
    FstabEntry,
    MdEntry,
    parse_crypttab,
    parse_fstab,
    parse_mdadm,
    unescape,
)
from imgtools.model.storage import (
    BlockDevice,
    Filesystem,
    LogicalVolume,
    LuksVolume,
    MdDevice,
    Partition,
    PhysicalVolume,
    Storage,
    VolumeGroup,
)
from tests.unit.guest.guests import DEBIAN, filesystem, inspect_files, session_of

pytestmark = pytest.mark.unit

ROOT_UUID = "11111111-2222-3333-4444-555555555555"


def part(name: str, number: int, **more: object) -> Partition:
    fields = {"name": name, "number": number, "size": 1 << 30, "table": "gpt", "parent": name[:8]}
    return Partition(**{**fields, **more})


STORAGE = Storage(
    devices=(
        BlockDevice(name="/dev/sda", size=1 << 34, disk=0),
        BlockDevice(name="/dev/sdb", size=1 << 34, disk=1),
    ),
    partitions=(
        part("/dev/sda1", 1, label="root part", gpt_guid="AAAAAAAA-0000-0000-0000-000000000001"),
        part("/dev/sda2", 2),
        part("/dev/sdb1", 1, label="root part", gpt_guid="AAAAAAAA-0000-0000-0000-000000000001"),
        part("/dev/sdb2", 2),
    ),
    mds=(
        MdDevice(
            name="/dev/md127",
            size=1,
            level="raid1",
            uuid="01234567:89abcdef:01234567:89abcdef",
            parents=("/dev/sda2", "/dev/sdb2"),
            set_name="host:data",
        ),
    ),
    pvs=(PhysicalVolume(name="/dev/sda2", size=1, uuid="x", vg="my-vg"),),
    vgs=(
        VolumeGroup(name="my-vg", own_name="my-vg", size=1, uuid="a", parents=("/dev/sda2",)),
        VolumeGroup(name="my-vg-abc", own_name="my-vg", size=1, uuid="b", parents=("/dev/sdb2",)),
    ),
    lvs=(
        LogicalVolume(name="/dev/my-vg/ho-me", size=1, uuid="l1", vg="my-vg"),
        LogicalVolume(name="/dev/my-vg-abc/ho-me", size=1, uuid="l2", vg="my-vg-abc"),
    ),
    luks=(
        LuksVolume(
            device="/dev/sda2",
            uuid="cccccccc-0000-0000-0000-00000000000c",
            version=2,
            mapped="/dev/mapper/opened",
        ),
        LuksVolume(device="/dev/sdb2", uuid="dddddddd-0000-0000-0000-00000000000d", version=2),
    ),
    filesystems=(
        filesystem("/dev/sda1", uuid=ROOT_UUID, label="root"),
        filesystem("/dev/sdb1", uuid=ROOT_UUID, label="root", disks=(1,)),
        filesystem("/dev/my-vg/ho-me", "xfs", uuid="abcd"),
        filesystem("/dev/my-vg-abc/ho-me", "xfs", uuid="abcd", disks=(1,)),
        filesystem("/dev/mapper/opened"),
        filesystem("/dev/md127", "btrfs", uuid="bbbb", disks=(0, 1)),
        filesystem("btrfsvol:/dev/md127/@", "btrfs", uuid="bbbb", disks=(0, 1)),
    ),
)
FIRST, SECOND = STORAGE.filesystems[:2]


def resolve(spec: str, root: Filesystem = FIRST, point: str = "/x", **more: object) -> str | None:
    devices = Devices(
        STORAGE,
        root,
        [CryptEntry("secret", "UUID=cccccccc-0000-0000-0000-00000000000c")],
        [MdEntry("/dev/md/7", "0123456789abcdef0123456789abcdef")],
    )
    entry = FstabEntry(
        spec,
        point,
        str(more.get("type", "ext4")),
        tuple(more.get("options", ())),  # type: ignore[arg-type]
    )
    return devices.resolve(entry)


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        (f"UUID={ROOT_UUID}", "/dev/sda1"),
        (f'UUID="{ROOT_UUID.upper()}"', "/dev/sda1"),
        ("UUID=99999999-0000-0000-0000-000000000000", None),
        ("LABEL=root", "/dev/sda1"),
        ("PARTUUID=aaaaaaaa-0000-0000-0000-000000000001", "/dev/sda1"),
        ("PARTLABEL=root part", "/dev/sda1"),
        (f"/dev/disk/by-uuid/{ROOT_UUID}", "/dev/sda1"),
        ("/dev/disk/by-label/root", "/dev/sda1"),
        (r"/dev/disk/by-partlabel/root\x20part", "/dev/sda1"),
        ("/dev/disk/by-id/scsi-1234-part1", "/dev/disk/by-id/scsi-1234-part1"),
        ("/dev/vda1", "/dev/sda1"),
        ("/dev/xvdb1", "/dev/sdb1"),
        ("/dev/hdb2", "/dev/sdb2"),
        ("/dev/sdc1", "/dev/sdc1"),
        ("/dev/vdc1", "/dev/sdc1"),
        ("/dev/nvme0n1p2", "/dev/sda2"),
        ("/dev/mapper/my--vg-ho--me", "/dev/my-vg/ho-me"),
        ("/dev/my-vg/ho-me", "/dev/my-vg/ho-me"),
        ("/dev/mapper/secret", "/dev/mapper/opened"),
        ("/dev/mapper/luks-cccccccc-0000-0000-0000-00000000000c", "/dev/mapper/opened"),
        ("/dev/mapper/nobody", "/dev/mapper/nobody"),
        ("/dev/md7", "/dev/md127"),
        ("/dev/md/data", "/dev/md127"),
        ("/dev/root", "/dev/sda1"),
        ("tmpfs", None),
        ("server:/export", None),
        ("//server/share", None),
        ("/swapfile", None),
    ],
)
def test_what_a_spec_means(spec: str, device: str | None) -> None:
    assert resolve(spec) == device


def test_among_clones_the_one_on_the_roots_own_disks_is_meant() -> None:
    assert resolve(f"UUID={ROOT_UUID}", root=SECOND) == "/dev/sdb1"
    assert resolve("LABEL=root", root=SECOND, point="/") == "/dev/sdb1"
    assert resolve("/dev/mapper/my--vg-ho--me", root=SECOND) == "/dev/my-vg-abc/ho-me"
    assert resolve("PARTLABEL=root part", root=SECOND) == "/dev/sdb1"


@pytest.mark.parametrize(
    ("options", "device"),
    [
        (("subvol=@",), "btrfsvol:/dev/md127/@"),
        (("rw", "subvol=/@"), "btrfsvol:/dev/md127/@"),
        (("subvol=gone",), "btrfsvol:/dev/md127/gone"),
        (("subvolid=5",), "/dev/md127"),
        ((), "/dev/md127"),
    ],
)
def test_btrfs_subvolumes(options: tuple[str, ...], device: str) -> None:
    assert resolve("UUID=bbbb", type="btrfs", options=options) == device


def test_a_crypttab_that_names_itself_ends() -> None:
    devices = Devices(STORAGE, FIRST, [CryptEntry("a", "/dev/mapper/a")])
    assert devices.device_of("/dev/mapper/a") == "/dev/mapper/a"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vg-lv", [("vg", "lv")]),
        ("my--vg-l--v", [("my-vg", "l-v")]),
        ("VG----test-LV----test", [("VG--test", "LV--test")]),
        ("plain", []),
        ("-" * 600, []),
    ],
)
def test_split_mapper_name(name: str, parts: list[tuple[str, str]]) -> None:
    assert split_mapper_name(name) == parts


def test_fstab_lines() -> None:
    findings = Findings("x")
    lines = [
        b"# comment",
        b"",
        b"/dev/sda1 / ext4 defaults,noatime 0 1",
        b"\t/dev/sda2\t///var//lib/  xfs",
        b"/dev/sda3 /mnt/my\\040disk ext4 ro",
        b"/dev/sda4 none swap sw",
        b"/dev/cdrom /cd iso9660 ro",
        b"proc /proc proc defaults",
        b"/dev/sda5 /../../etc ext4 defaults",
        b"garbage",
    ]
    entries = parse_fstab(lines, findings)
    assert [(e.spec, e.point, e.type) for e in entries] == [
        ("/dev/sda1", "/", "ext4"),
        ("/dev/sda2", "/var/lib", "xfs"),
        ("/dev/sda3", "/mnt/my disk", "ext4"),
        ("/dev/sda4", "none", "swap"),
    ]
    assert entries[0].option("noatime") is None
    assert [w.code for w in findings.warnings] == ["inspect.fstab"]


def test_fstab_of_a_million_lines_is_cut() -> None:
    lines = [b"/dev/sda1 /x%d ext4 defaults" % n for n in range(1_000_000)]
    findings = Findings("x")
    assert len(parse_fstab(lines, findings)) == 2000
    assert "more than" in findings.warnings[0].message


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_fstab_ends_inspection(lines: list[bytes]) -> None:
    content = b"\n".join(lines)
    found = inspect_files({**DEBIAN, "etc/fstab": content, "etc/crypttab": content})
    assert found.distro == "debian"
    assert found.applications


@given(st.binary(max_size=40))
def test_unescape_never_grows(field: bytes) -> None:
    assert len(unescape(field)) <= len(field)


def test_crypttab_and_mdadm() -> None:
    assert parse_crypttab([b"# x", b"luks0 UUID=1 none luks", b"lonely"]) == [
        CryptEntry("luks0", "UUID=1")
    ]
    lines = [
        b"DEVICE partitions",
        b"ARRAY /dev/md0 level=raid1",
        b"   uuid=01234567:89ABCDEF:01234567:89abcdef",
        b"ARRAY /dev/md1 UUID=nonsense",
    ]
    assert parse_mdadm(lines) == [MdEntry("/dev/md0", "0123456789abcdef0123456789abcdef")]


# --- the guest put together ----------------------------------------------------------------------


def test_mountpoints_and_filesystems_as_virt_inspector_lists_them() -> None:
    fstab = (
        f"UUID={ROOT_UUID} / ext4 defaults 0 1\n"
        "UUID=5a5a /usr ext4 defaults 0 1\n"
        "UUID=5e5e none swap sw 0 0\n"
        "UUID=404 /gone ext4 defaults 0 0\n"
        "/dev/sdz9 /lost ext4 defaults 0 0\n"
        "UUID=bad /broken ext4 defaults 0 0\n"
    ).encode()
    root = {k: v for k, v in DEBIAN.items() if not k.startswith("usr/")}
    usr = {k.removeprefix("usr/"): v for k, v in DEBIAN.items() if k.startswith("usr/")}
    storage = Storage(
        devices=(BlockDevice(name="/dev/sda", size=1, disk=0),),
        filesystems=(
            filesystem("/dev/sda1", uuid=ROOT_UUID),
            filesystem("/dev/sda2", uuid="5a5a"),
            filesystem("/dev/sda3", "swap", uuid="5e5e", label="swp"),
            filesystem("/dev/sda4", uuid="bad"),
        ),
    )
    trees = {"/dev/sda1": {**root, "etc/fstab": fstab, "usr/": None}, "/dev/sda2": usr}
    session, _ = session_of(trees, storage)
    (found,) = inspect_guests(session)
    assert [(m.path, m.device) for m in found.mountpoints] == [
        ("/", "/dev/sda1"),
        ("/usr", "/dev/sda2"),
        ("/lost", "/dev/sdz9"),
        ("/broken", "/dev/sda4"),
    ]
    assert [(f.device, f.type, f.label) for f in found.filesystems] == [
        ("/dev/sda1", "ext4", ""),
        ("/dev/sda2", "ext4", ""),
        ("/dev/sda3", "swap", "swp"),
        ("/dev/sda4", "ext4", ""),
        ("/dev/sdz9", "", ""),
    ]
    # What lies on the other filesystem was found through it.
    assert (found.arch, found.pretty_name) == ("x86_64", "Debian GNU/Linux 12 (bookworm)")
    messages = [w.message for w in found.warnings]
    assert any("/lost" in m for m in messages)
    assert any("/broken" in m and "does not mount" in m for m in messages)


def test_without_fstab_the_root_is_all() -> None:
    found = inspect_files({**DEBIAN, "etc/fstab": b"\n"})
    assert [(m.path, m.device) for m in found.mountpoints] == [("/", "/dev/sda1")]
    assert [f.device for f in found.filesystems] == ["/dev/sda1"]
