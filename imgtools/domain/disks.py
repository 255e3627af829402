"""The disks in a domain's XML (https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms).

Which disks count follows ``guestfs_add_libvirt_dom`` (libguestfs lib/libvirt-domain.c), in the
document's order, with two differences: CD-ROM and floppy drives are left out, since their
media are no part of the guest, and what cannot be read is reported instead of skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from imgtools.errors import LibvirtError
from imgtools.model.disks import KNOWN_FORMATS

if TYPE_CHECKING:
    from lxml.etree import _Element

FindVolume = Callable[[str, str], "str | None"]
MAX_XML = 16 << 20

# libvirt's names of formats (virStorageFileFormat) that differ from qemu's.
_FORMATS = {"iso": "raw", "vhd": "vpc", "ploop": "parallels"}
_PORTS = {"nbd": 10809, "http": 80, "https": 443, "ftp": 21, "ftps": 990, "tftp": 69, "ssh": 22}


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainDisk:
    """A hard disk of a domain: on this host at ``path``, or behind ``uri``.

    ``type`` is libvirt's (file, block, network, volume …); ``format`` is None when the XML
    names none; ``unsupported`` says why there is neither path nor URI.
    """

    target: str
    bus: str
    device: str
    type: str
    path: str | None = None
    uri: str | None = None
    format: str | None = None
    block_size: Literal[512, 4096] = 512
    readonly: bool = False
    unsupported: str | None = None


def disks_of(xml: str | bytes, find_volume: FindVolume | None = None) -> list[DomainDisk]:
    """The hard disks of a domain XML, in order, without empty drives.

    ``find_volume(pool, volume)`` gives the path of a disk that lies in a storage pool.
    Raises LibvirtError when the text is not a domain's XML.
    """
    root = parse_xml(xml)
    default = "raw" if root.get("type") in ("qemu", "kvm") else None
    disks = []
    for element in root.iterfind("./devices/disk"):
        if element.get("device", "disk") in ("disk", "lun"):
            disk = _disk(element, default, find_volume)
            if disk is not None:
                disks.append(disk)
    return disks


def parse_xml(xml: str | bytes, tag: str = "domain") -> _Element:
    """The root ``tag`` of one of libvirt's documents.  Raises LibvirtError."""
    from lxml import etree

    raw = xml.encode() if isinstance(xml, str) else xml
    if len(raw) > MAX_XML:
        raise LibvirtError(f"the {tag}'s XML is larger than {MAX_XML} bytes")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        raise LibvirtError(f"the {tag}'s XML cannot be parsed: {error.msg}") from None
    if root.tag != tag:
        raise LibvirtError(f"the XML is not a {tag}'s: its root is not <{tag}>")
    return root


def _disk(
    element: _Element, default_format: str | None, find_volume: FindVolume | None
) -> DomainDisk | None:
    kind = element.get("type", "file")
    path, uri, unsupported = _source(kind, element.find("source"), find_volume)
    if uri is not None and element.xpath("auth|source/auth"):
        uri, unsupported = None, "a network disk whose password libvirt keeps is not supported"
    if path is None and uri is None and unsupported is None:
        return None
    image_format, problem = _format(element, default_format)
    unsupported = unsupported or problem
    target, blockio = element.find("target"), element.find("blockio")
    large = blockio is not None and blockio.get("logical_block_size") == "4096"
    return DomainDisk(
        target=target.get("dev", "?") if target is not None else "?",
        bus=target.get("bus", "") if target is not None else "",
        device=element.get("device", "disk"),
        type=kind,
        path=path if unsupported is None else None,
        uri=uri if unsupported is None else None,
        format=image_format,
        block_size=4096 if large else 512,
        readonly=element.find("readonly") is not None,
        unsupported=unsupported,
    )


def _format(element: _Element, default: str | None) -> tuple[str | None, str | None]:
    """The image format, and why it cannot be read."""
    driver = element.find("driver")
    named = driver.get("type") if driver is not None else None
    image_format = _FORMATS.get(named, named) if named is not None else default
    if image_format is not None and image_format not in KNOWN_FORMATS:
        return None, f"image format {image_format} is not supported"
    encryption = element.find("source/encryption")
    if encryption is None:
        encryption = element.find("encryption")
    if encryption is not None and encryption.get("format") == "luks" and image_format == "raw":
        return "luks", None
    return image_format, None


def _source(
    kind: str, source: _Element | None, find_volume: FindVolume | None
) -> tuple[str | None, str | None, str | None]:
    """(path, URI, why neither); all None for an empty drive."""
    if kind in ("dir", "vhostuser", "vhostvdpa", "nvme"):
        return None, None, f"libvirt's disk type {kind} cannot be read from outside the guest"
    if source is None:
        return None, None, None
    if kind == "file":
        return source.get("file"), None, None
    if kind == "block":
        return source.get("dev"), None, None
    if kind == "volume":
        return _volume(source, find_volume)
    if kind == "network":
        return _network(source)
    return None, None, f"unknown disk type {kind}"


def _volume(
    source: _Element, find_volume: FindVolume | None
) -> tuple[str | None, str | None, str | None]:
    pool, name = source.get("pool"), source.get("volume")
    if not pool or not name:
        return None, None, None
    path = find_volume(pool, name) if find_volume is not None else None
    if path is None:
        return None, None, f"libvirt finds no volume {name} in pool {pool} (virsh vol-list {pool})"
    return path, None, None


def _network(source: _Element) -> tuple[str | None, str | None, str | None]:
    """A URI as ``-a`` takes it (guestfish's, fish/uri.c)."""
    protocol, name = source.get("protocol", ""), source.get("name", "")
    if protocol not in _PORTS:
        return None, None, f"network protocol {protocol or '?'} is not supported"
    host = source.find("host")
    if host is None:
        return None, None, f"{protocol} without a host"
    path = "/" + quote(name.lstrip("/")) if name else ""
    if socket := host.get("socket"):
        return None, f"nbd+unix://{path}?socket={quote(socket)}", None
    server = host.get("name", "localhost")
    server = f"[{server}]" if ":" in server else server
    port = host.get("port")
    if port and (not port.isdigit() or int(port) == _PORTS[protocol]):
        port = None
    user = source.get("user") or ""
    query = f"?{source.get('query')}" if source.get("query") else ""
    login = f"{quote(user)}@" if user else ""
    address = f"{server}:{port}" if port else server
    return None, f"{protocol}://{login}{address}{path}{query}", None
