"""Domains of a libvirt connection, as records."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from imgtools.domain.connection import binding, translated
from imgtools.domain.disks import DomainDisk, disks_of
from imgtools.errors import NoDomainError

_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A machine definition: ``active`` while it runs, is paused or is going up or down.

    ``saved``: shut off with its memory saved, so that its disks stopped in mid-sentence.
    """

    name: str
    uuid: str
    active: bool
    saved: bool
    disks: tuple[DomainDisk, ...]


def list_domains(connection: Any) -> list[Domain]:
    """Every domain, sorted by name; one that vanishes meanwhile is left out."""
    libvirt = binding()
    domains = []
    with translated():
        handles = connection.listAllDomains()
    for handle in handles:
        try:
            domains.append(_record(connection, handle))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return sorted(domains, key=lambda domain: domain.name)


def find_domain(connection: Any, name: str) -> Domain:
    """The domain of that name, else of that UUID.

    Raises NoDomainError naming those of similar name.
    """
    libvirt = binding()
    lookups = [connection.lookupByName]
    if _UUID.fullmatch(name):
        lookups.append(connection.lookupByUUIDString)
    for lookup in lookups:
        try:
            handle = lookup(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        else:
            return _record(connection, handle)
    known = [handle.name() for handle in connection.listAllDomains()]
    raise NoDomainError(f"{name}: no such domain in {connection.getURI()}", hint=_hint(name, known))


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return "libvirt knows no domain at all; -a FILE names an image"
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    if close:
        return f"did you mean: {', '.join(close)}?"
    shown = ", ".join(sorted(known)[:5])
    return f"known: {shown}{', ...' * (len(known) > 5)}"


def _record(connection: Any, handle: Any) -> Domain:
    active = bool(handle.isActive())
    return Domain(
        name=handle.name(),
        uuid=handle.UUIDString(),
        active=active,
        saved=not active and bool(handle.hasManagedSaveImage(0)),
        disks=tuple(
            disks_of(handle.XMLDesc(0), lambda pool, name: find_volume(connection, pool, name))
        ),
    )


def find_volume(connection: Any, pool: str, name: str) -> str | None:
    """The host path of a volume, None when libvirt does not know one."""
    libvirt = binding()
    try:
        return str(connection.storagePoolLookupByName(pool).storageVolLookupByName(name).path())
    except libvirt.libvirtError:
        return None
