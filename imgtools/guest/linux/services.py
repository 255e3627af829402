"""The init system, and the services it starts at boot."""

from __future__ import annotations

import re
from collections.abc import Callable

from imgtools.errors import GuestOperationError
from imgtools.guest.inspection import Service
from imgtools.guest.linux.findings import Findings, decode
from imgtools.guest.tree import GuestTree

MAX_SERVICES = 5000
MAX_FOLDERS = 1000
_UNITS = (b"/etc/systemd/system", b"/usr/lib/systemd/system", b"/lib/systemd/system")
_RC_LINK = re.compile(rb"S\d\d(.+)\Z")

Wanted = dict[bytes, set[bytes]]


def find_init(tree: GuestTree) -> str:
    """``systemd``, ``openrc``, ``sysvinit``, ``upstart``, ``runit``, ``busybox`` … or empty."""
    target = _target(tree, b"/sbin/init")
    if b"systemd" in target:
        return "systemd"
    for name in "runit", "openrc", "dinit", "s6", "upstart":
        if name.encode() in target.rpartition(b"/")[2]:
            return name
    if tree.is_file(b"/sbin/openrc"):
        return "openrc"  # it runs below busybox's or sysvinit's init
    if b"busybox" in target:
        return "busybox"
    if tree.is_file(b"/sbin/initctl") and tree.is_dir(b"/etc/init"):
        return "upstart"
    if tree.is_file(b"/etc/inittab") or tree.is_dir(b"/etc/init.d"):
        return "sysvinit"
    for path in b"/usr/lib/systemd/systemd", b"/lib/systemd/systemd":
        if tree.is_file(path):
            return "systemd"
    return ""


def _target(tree: GuestTree, path: bytes) -> bytes:
    try:
        return tree.resolve(path)
    except GuestOperationError:
        return b""


def find_services(tree: GuestTree, findings: Findings, init: str) -> tuple[Service, ...]:
    """The services enabled for boot, by name."""
    reader = _READERS.get(init)
    services = reader(tree) if reader else {}
    if init == "systemd":
        native = set(services)
        extra = {n: w for n, w in _sysv(tree).items() if not _has_unit(tree, n, native)}
    else:
        extra = {}
    found = [(name, init, wanted) for name, wanted in services.items()]
    found += [(name, "sysvinit", wanted) for name, wanted in extra.items()]
    if len(found) > MAX_SERVICES:
        findings.warn("services", f"more than {MAX_SERVICES} services; the rest is not listed")
    return tuple(
        Service(name=decode(name), manager=manager, wanted_by=tuple(sorted(map(decode, wanted))))
        for name, manager, wanted in sorted(found)[:MAX_SERVICES]
    )


def _systemd(tree: GuestTree) -> Wanted:
    """Links that ``systemctl enable`` made: TARGET.wants/UNIT and TARGET.requires/UNIT."""
    services: Wanted = {}
    for folder in tree.listdir(b"/etc/systemd/system")[:MAX_FOLDERS]:
        target, dot, kind = folder.rpartition(b".")
        if dot and kind in (b"wants", b"requires"):
            for unit in tree.listdir(b"/etc/systemd/system/" + folder)[:MAX_SERVICES]:
                services.setdefault(unit, set()).add(target)
    return services


def _has_unit(tree: GuestTree, name: bytes, native: set[bytes]) -> bool:
    unit = name + b".service"
    return unit in native or any(_lexists(tree, folder + b"/" + unit) for folder in _UNITS)


def _lexists(tree: GuestTree, path: bytes) -> bool:
    try:
        tree.lstat(path)
    except GuestOperationError:
        return False
    return True


def _sysv(tree: GuestTree) -> Wanted:
    services: Wanted = {}
    for level in b"S2345":
        runlevel = bytes((level,))
        for base in b"/etc", b"/etc/rc.d", b"/etc/init.d":
            for name in tree.listdir(base + b"/rc" + runlevel + b".d")[:MAX_SERVICES]:
                if match := _RC_LINK.match(name):
                    services.setdefault(match[1], set()).add(runlevel)
    return services


def _openrc(tree: GuestTree) -> Wanted:
    services: Wanted = {}
    for runlevel in tree.listdir(b"/etc/runlevels")[:MAX_FOLDERS]:
        for name in tree.listdir(b"/etc/runlevels/" + runlevel)[:MAX_SERVICES]:
            services.setdefault(name, set()).add(runlevel)
    return services


def _upstart(tree: GuestTree) -> Wanted:
    names = {n.removesuffix(b".conf") for n in tree.listdir(b"/etc/init") if n.endswith(b".conf")}
    return {name: set() for name in sorted(names)[:MAX_SERVICES]}


def _runit(tree: GuestTree) -> Wanted:
    base = b"/etc/runit/runsvdir"
    return {name: {b"default"} for name in tree.listdir(base + b"/default")[:MAX_SERVICES]}


_READERS: dict[str, Callable[[GuestTree], Wanted]] = {
    "systemd": _systemd,
    "sysvinit": _sysv,
    "busybox": _sysv,
    "openrc": _openrc,
    "upstart": _upstart,
    "runit": _runit,
}
