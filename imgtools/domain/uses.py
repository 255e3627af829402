"""Which domains, and which of their snapshots, use an image; and where a pool keeps its volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtools.domain.connection import binding, open_connection, remote_host, translated
from imgtools.domain.disks import DomainDisk, disks_of, parse_xml
from imgtools.domain.domains import find_volume
from imgtools.domain.users import SOCKETS, URI
from imgtools.errors import ImgtoolsError, RefusedError

_FOLDER_POOLS = ("dir", "fs", "netfs", "gluster", "vstorage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A domain has ``path`` as a disk, now (``snapshot`` None) or in one of its snapshots.

    ``format`` is what the domain's XML says of it, None where it says nothing.
    """

    path: str
    domain: str
    active: bool
    format: str | None = None
    snapshot: str | None = None


def uses(connect: str | None = None) -> list[Use]:
    """Every use of a local image by the domains of ``connect``.

    Without ``connect`` the host's own libvirt is asked, where its daemon answers: nothing is
    started, and its absence is no error.  Raises LibvirtError and MissingBindingError otherwise.
    """
    if connect is None and not any(Path(socket).exists() for socket in SOCKETS):
        return []
    try:
        with open_connection(connect or URI) as connection:
            if remote_host(connection) is not None:
                raise RefusedError(
                    f"{connect}: its images are on another host", hint="run imgtools on that host"
                )
            return list(_all(connection))
    except ImgtoolsError:
        if connect is not None:
            raise
        return []


def pool_folder(name: str, connect: str | None = None) -> Path:
    """The folder in which the volumes of a pool are.

    Raises LibvirtError, MissingBindingError, and RefusedError for a pool that is no folder of
    this host.
    """
    with open_connection(connect or URI) as connection:
        if remote_host(connection) is not None:
            raise RefusedError(
                f"{connect}: its pools are on another host", hint="run imgtools on that host"
            )
        root = parse_xml(connection.storagePoolLookupByName(name).XMLDesc(0), "pool")
    path = root.findtext("./target/path")
    if root.get("type") not in _FOLDER_POOLS or not path:
        raise RefusedError(
            f"pool {name}: its volumes are no files in a folder (a {root.get('type')} pool)",
            hint="name a folder of images",
        )
    return Path(path)


def _all(connection: Any) -> Iterator[Use]:
    libvirt = binding()
    with translated():
        handles = connection.listAllDomains()
    for handle in handles:
        try:
            yield from _of_domain(connection, handle)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise


def _of_domain(connection: Any, handle: Any) -> Iterator[Use]:
    libvirt = binding()
    active = bool(handle.isActive())
    texts: list[tuple[str | None, str | bytes]] = [(None, handle.XMLDesc(0))]
    if active:
        texts.append((None, handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
    texts += _snapshots(handle)
    seen = set()
    for snapshot, xml in texts:
        for disk in disks_of(xml, lambda pool, name: find_volume(connection, pool, name)):
            use = _use(disk, handle.name(), snapshot, active=active)
            if use is not None and (use.path, snapshot) not in seen:
                seen.add((use.path, snapshot))
                yield use


def _snapshots(handle: Any) -> Iterator[tuple[str | None, str | bytes]]:
    """The name of each snapshot, and the domain as it was then."""
    from lxml import etree

    for snapshot in handle.listAllSnapshots():
        domain = parse_xml(snapshot.getXMLDesc(0), "domainsnapshot").find("./domain")
        if domain is not None:
            yield snapshot.getName(), etree.tostring(domain)


def _use(disk: DomainDisk, domain: str, snapshot: str | None, *, active: bool) -> Use | None:
    if disk.path is None:
        return None
    return Use(path=disk.path, domain=domain, active=active, format=disk.format, snapshot=snapshot)
