"""Reading what the appliance's script prints, and making the storage record of it."""

from __future__ import annotations

import json

import pytest

from imgtools.appliance.storage import Builder
from imgtools.appliance.survey import (
    details_script,
    disk_index,
    groups_in_disk_order,
    parse_survey,
    unescape,
    with_details,
)

pytestmark = pytest.mark.unit

GPT = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def row(kname: str, kind: str = "disk", size: int = 1000, **more: object) -> dict[str, object]:
    return {"kname": kname, "path": f"/dev/{kname}", "type": kind, "size": size, **more}


def printed(rows: list[dict[str, object]], system: list[str], root: str = "sdz") -> bytes:
    """What the first script prints; the bus has sdb in front of sda."""
    return "\n".join(
        [
            f"@@root /dev/{root}",
            "@@links",
            "/dev/disk/by-path/pci-0-scsi-0:0:10:0",
            "/dev/disk/by-path/pci-0-scsi-0:0:10:0-part1",
            "/dev/disk/by-path/pci-0-scsi-0:0:2:0",
            "/dev/disk/by-path/pci-0-scsi-0:0:11:0",
            *("@@targets", "/dev/sda", "/dev/sda1", "/dev/sdb", "/dev/sdz"),
            *("@@lsblk", json.dumps({"blockdevices": rows})),
            *("@@sys", *system),
        ]
    ).encode()


def test_names_follow_the_bus_and_not_the_order_of_probing() -> None:
    rows = [
        row("sda", size=10),
        row("sda1", "part", 5, pkname="sda", pttype="gpt", parttype=GPT, fstype="ext4"),
        row("sdb", size=20, fstype="xfs"),
        row("sdz", size=30),
    ]
    survey = parse_survey(printed(rows, ["sda|||||", "sda1|2048|1||||", "sdb|||||", "sdz|||||"]))
    storage = Builder(survey, {}, {}, keyed=False).build()
    assert [(d.name, d.size, d.disk) for d in storage.devices] == [
        ("/dev/sda", 20, 0),
        ("/dev/sdb", 10, 1),
    ]
    (partition,) = storage.partitions
    assert (partition.name, partition.parent, partition.start) == ("/dev/sdb1", "/dev/sdb", 1 << 20)
    assert [(f.device, f.type, f.disks) for f in storage.filesystems] == [
        ("/dev/sda", "xfs", (0,)),
        ("/dev/sdb1", "ext4", (1,)),
    ]


@pytest.mark.parametrize(
    ("table", "kind", "holds"),
    [
        ("dos", "0x83", True),
        ("dos", "0x5", False),
        ("dos", "0xf", False),
        ("dos", "0x85", False),
        ("dos", "0x42", False),
        ("gpt", GPT, True),
        ("gpt", "e3c9e316-0b5c-4db8-817d-f92df00215ae", False),
        ("gpt", "", True),
    ],
)
def test_which_partitions_can_hold_a_filesystem(table: str, kind: str, holds: bool) -> None:
    rows = [row("sda"), row("sda1", "part", pkname="sda", pttype=table, parttype=kind)]
    survey = parse_survey(printed(rows, ["sda|||||", "sda1|63|1||||"]))
    storage = Builder(survey, {}, {}, keyed=False).build()
    assert [f.type for f in storage.filesystems] == (["unknown"] if holds else [])
    assert storage.partitions[0].extended == (kind in ("0x5", "0xf", "0x85"))


def test_volume_groups_come_in_the_order_of_their_disks() -> None:
    report = {
        "report": [
            {"pv": [{"pv_name": "/dev/sda", "vg_name": "vg", "vg_uuid": "on-second-disk"}]},
            {"pv": [{"pv_name": "/dev/sdb", "vg_name": "vg", "vg_uuid": "on-first-disk"}]},
            {"pv": [{"pv_name": "/dev/sdb", "vg_name": "", "vg_uuid": ""}]},
        ]
    }
    rows = [row("sda", fstype="LVM2_member"), row("sdb", fstype="LVM2_member")]
    survey = parse_survey(printed(rows, ["sda|||||", "sdb|||||"]))
    assert "lvm fullreport" in details_script(survey)
    survey = with_details(survey, b"@@lvm\n" + json.dumps(report).encode())
    assert groups_in_disk_order(survey) == [("vg", "on-first-disk"), ("vg", "on-second-disk")]


@pytest.mark.parametrize("lvm", [b"", b"no json", b'{"report": 1}', b'{"report": [{"pv": [1]}]}'])
def test_a_bad_lvm_report_costs_the_volumes_only(lvm: bytes) -> None:
    survey = parse_survey(printed([row("sda", fstype="ext4")], ["sda|||||"]))
    survey = with_details(survey, b"@@lvm\n" + lvm)
    storage = Builder(survey, {}, {}, keyed=False).build()
    assert (storage.pvs, storage.vgs, storage.lvs) == ((), (), ())
    assert [f.type for f in storage.filesystems] == ["ext4"]


@pytest.mark.parametrize("rows", [b"", b"{}", b"[]", b'{"blockdevices": [3, {"kname": 4}]}'])
def test_a_bad_answer_of_lsblk_is_no_disks(rows: bytes) -> None:
    raw = b"@@root /dev/sdz\n@@links\n@@targets\n@@lsblk\n" + rows + b"\n@@sys\nsda|x|y\n"
    assert parse_survey(raw).devices == {}


def test_a_volume_without_a_key_is_a_warning() -> None:
    survey = parse_survey(
        printed([row("sda", fstype="crypto_LUKS", fsver="2", uuid="u")], ["sda|||||"])
    )
    storage = Builder(survey, {}, {}, keyed=False).build()
    assert [(v.device, v.version, v.mapped) for v in storage.luks] == [("/dev/sdb", 2, None)]
    assert storage.filesystems == ()
    assert [w.code for w in storage.warnings] == ["image.encrypted"]


def test_device_names_are_quoted_for_the_shell() -> None:
    rows = [row("sda", path="/dev/mapper/a b;reboot", fstype="btrfs")]
    script = details_script(parse_survey(printed(rows, ["sda|||||"])))
    assert "for device in '/dev/mapper/a b;reboot'; do" in script


@pytest.mark.parametrize(
    ("path", "index"),
    [
        *(("/dev/sda", 0), ("/dev/sdz9", 25), ("/dev/sdaa", 26), ("/dev/sdab12", 27)),
        *(("/dev/md127", None), ("/dev/vg/sda", None)),
    ],
)
def test_disk_index(path: str, index: int | None) -> None:
    assert disk_index(path) == index


def test_unescape_keeps_every_byte() -> None:
    assert unescape(r"a\x20b\xc3\xa4\xff\x0a") == "a bä\udcff\n"
