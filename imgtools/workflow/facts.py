"""What changed between two inspections, in words that mean something to an administrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from imgtools.guest.inspection import Application, Inspection, User

Area = Literal["system", "package", "user", "service", "kernel"]

_FIELDS = ("pretty_name", "arch", "hostname", "machine_id", "init", "timezone", "locale")


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChange:
    """One fact that differs; ``before`` is None for one that came, ``after`` for one that went.

    ``name`` is the package, the user …, or the field of the system.
    """

    area: Area
    name: str
    before: str | None = None
    after: str | None = None


Facts = Mapping[Area, Mapping[str, str]]
"""Area -> name -> what is known of it, as text to compare and to show."""


def facts_of(one: Inspection) -> Facts:
    """What of an inspection is compared: a small part of it, so that two fit into memory."""
    return {
        "system": {name: getattr(one, name) for name in _FIELDS if getattr(one, name)},
        "package": _packages(one.applications),
        "user": {user.name: _user(user) for user in one.users},
        "service": {service.name: ", ".join(service.wanted_by) for service in one.services},
        "kernel": {kernel.version: kernel.path for kernel in one.kernels},
    }


def compare_facts(old: Facts, new: Facts) -> list[FactChange]:
    """Every fact that differs, area by area, by name."""
    return [
        FactChange(area=area, name=name, before=old[area].get(name), after=new[area].get(name))
        for area in old
        for name in sorted(old[area].keys() | new[area].keys())
        if old[area].get(name) != new[area].get(name)
    ]


def _packages(applications: Sequence[Application]) -> dict[str, str]:
    """Versions by name; a package there in several (kernels, architectures) has them all."""
    found: dict[str, list[str]] = {}
    arches: dict[str, set[str]] = {}
    for one in applications:
        arches.setdefault(one.name, set()).add(one.arch)
    for one in applications:
        # Debian's multiarch: libc6 for amd64 and for i386 are two packages of one name.
        name = f"{one.name}:{one.arch}" if len(arches[one.name]) > 1 else one.name
        found.setdefault(name, []).append(_version(one))
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _version(one: Application) -> str:
    epoch = f"{one.epoch}:" if one.epoch else ""
    release = f"-{one.release}" if one.release else ""
    return f"{epoch}{one.version}{release}"


def _user(user: User) -> str:
    login = ", ".join(user.login_methods) or "no login"
    keys = f" ({user.ssh_keys} keys)" if user.ssh_keys else ""
    return f"uid {user.uid}, gid {user.gid}, {user.home}, {user.shell}, {login}{keys}"
