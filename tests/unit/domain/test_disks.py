"""Disks out of a domain's XML, kind by kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.domain.disks import DomainDisk, disks_of
from imgtools.errors import LibvirtError

pytestmark = pytest.mark.unit


def domain(*disks: str, kind: str = "kvm") -> str:
    return f"<domain type='{kind}'><name>n</name><devices>{''.join(disks)}</devices></domain>"


def only(disk: str, **keywords: object) -> DomainDisk:
    found = disks_of(domain(disk), **keywords)  # type: ignore[arg-type]
    assert len(found) == 1
    return found[0]


TARGET = "<target dev='vda' bus='virtio'/>"


def test_a_file() -> None:
    assert only(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source file='/srv/a b.qcow2'/>{TARGET}<readonly/></disk>"
    ) == DomainDisk(
        target="vda",
        bus="virtio",
        device="disk",
        type="file",
        path="/srv/a b.qcow2",
        format="qcow2",
        readonly=True,
    )


def test_a_block_device_with_4k_sectors() -> None:
    disk = only(
        "<disk type='block' device='lun'><driver type='raw'/><source dev='/dev/vg/lv'/>"
        f"{TARGET}<blockio logical_block_size='4096' physical_block_size='4096'/></disk>"
    )
    assert (disk.path, disk.format, disk.block_size) == ("/dev/vg/lv", "raw", 4096)


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("<source protocol='nbd'><host name='h'/></source>", "nbd://h"),
        (
            "<source protocol='nbd' name='exp ort'><host name='h' port='10810'/></source>",
            "nbd://h:10810/exp%20ort",
        ),
        (
            "<source protocol='nbd' name='e'><host transport='unix' socket='/run/s'/></source>",
            "nbd+unix:///e?socket=/run/s",
        ),
        (
            "<source protocol='https' name='x' query='a=b'><host name='h' port='443'/></source>",
            "https://h/x?a=b",
        ),
        (
            "<source protocol='ftp' name='/x.img'><host name='::1' port='2121'/></source>",
            "ftp://[::1]:2121/x.img",
        ),
        ("<source protocol='ssh' name='/x'><host name='h'/></source>", "ssh://h/x"),
        ("<source protocol='tftp' name='/x'><host name='h'/></source>", "tftp://h/x"),
    ],
)
def test_network_disks_become_uris(source: str, uri: str) -> None:
    disk = only(f"<disk type='network'><driver type='raw'/>{source}{TARGET}</disk>")
    assert (disk.uri, disk.path, disk.unsupported) == (uri, None, None)


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        ("<disk type='dir'><source dir='/srv'/>", "disk type dir"),
        ("<disk type='vhostuser'><source type='unix' path='/s'/>", "disk type vhostuser"),
        ("<disk type='nvme'><source type='pci'/>", "disk type nvme"),
        ("<disk type='network'><source protocol='rbd' name='p/i'><host name='h'/></source>", "rbd"),
        ("<disk type='file'><driver type='bad'/><source file='/x'/>", "image format bad"),
        ("<disk type='volume'><source pool='p' volume='v'/>", "no volume v in pool p"),
        ("<disk type='quantum'><source file='/x'/>", "unknown disk type quantum"),
    ],
)
def test_what_cannot_be_read_is_named(disk: str, reason: str) -> None:
    found = only(f"{disk}{TARGET}</disk>", find_volume=lambda _pool, _name: None)
    assert found.unsupported is not None
    assert reason in found.unsupported
    assert (found.path, found.uri) == (None, None)


@pytest.mark.parametrize("template", ["<source {0}>{1}</source>", "<source {0}/>{1}"])
def test_a_network_disk_with_a_password_is_not_supported(template: str) -> None:
    auth = "<auth username='u'><secret type='iscsi' usage='s'/></auth>"
    source = template.format("protocol='https' name='x'", auth)
    source = source.replace("/>" + auth, "><host name='h'/></source>" + auth)
    source = source.replace(">" + auth + "</source>", "><host name='h'/>" + auth + "</source>")
    found = only(f"<disk type='network'>{source}</disk>")
    assert found.unsupported is not None
    assert "password" in found.unsupported


def test_empty_and_removable_drives_are_left_out() -> None:
    assert (
        disks_of(
            domain(
                "<disk type='file' device='cdrom'><target dev='sda'/></disk>",
                "<disk type='file' device='cdrom'><source file='/x'/><target dev='sdb'/></disk>",
                "<disk type='file' device='floppy'><source file='/f'/><target dev='fda'/></disk>",
                "<disk type='file' device='disk'><target dev='vda'/></disk>",
                "<disk type='volume'><source pool='p'/></disk>",
            )
        )
        == []
    )


def test_a_volume_is_found_through_its_pool() -> None:
    asked = []

    def find(pool: str, name: str) -> str:
        asked.append((pool, name))
        return "/pool/v.qcow2"

    disk = only(
        f"<disk type='volume'><driver type='qcow2'/><source pool='p' volume='v'/>{TARGET}</disk>",
        find_volume=find,
    )
    assert (disk.path, disk.type, asked) == ("/pool/v.qcow2", "volume", [("p", "v")])


@pytest.mark.parametrize(
    ("driver", "kind", "expected"),
    [
        ("", "kvm", "raw"),
        ("", "test", None),
        ("<driver type='vhd'/>", "kvm", "vpc"),
        ("<driver type='iso'/>", "kvm", "raw"),
        ("<driver type='raw'/><encryption format='luks'/>", "kvm", "luks"),
    ],
)
def test_formats(driver: str, kind: str, expected: str | None) -> None:
    xml = domain(f"<disk type='file'>{driver}<source file='/x'/></disk>", kind=kind)
    assert disks_of(xml)[0].format == expected


def test_order_is_the_documents() -> None:
    disk = "<disk type='file'><source file='/{0}'/><target dev='{0}'/></disk>"
    names = ["vdb", "sda", "vda"]
    assert [d.target for d in disks_of(domain(*map(disk.format, names)))] == names


def test_entities_reach_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("/etc/shadow-of-the-host", encoding="utf-8")
    xml = (
        f"<!DOCTYPE domain [<!ENTITY e SYSTEM 'file://{secret}'>]>"
        "<domain type='kvm'><devices><disk type='file'><driver type='raw'/>"
        "<source file='/x'/><target dev='vda'/></disk>"
        "<disk type='&e;'>&e;</disk></devices></domain>"
    )
    with pytest.raises(LibvirtError):
        disks_of(xml)  # an external entity in an attribute is not well-formed
    inside = xml.replace("<disk type='&e;'>&e;</disk>", "<x>&e;</x>")
    assert "shadow" not in repr(disks_of(inside))


def test_a_billion_laughs_end_at_once() -> None:
    layers = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 12))
    xml = f"<!DOCTYPE domain [<!ENTITY l0 'ha'>{layers}]><domain><name>&l11;</name></domain>"
    with pytest.raises(LibvirtError):
        disks_of(xml)


@pytest.mark.parametrize("xml", ["", "<domain>", "<network/>", "\x00", "plain"])
def test_what_is_no_domain_is_one_error(xml: str) -> None:
    with pytest.raises(LibvirtError):
        disks_of(xml)
