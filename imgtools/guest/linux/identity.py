"""Names and settings: hostname, machine-id, time zone, locale."""

from __future__ import annotations

import re

from imgtools.guest.linux.findings import (
    Findings,
    decode,
    key_values,
    link_target,
    shell_unquote,
)
from imgtools.guest.tree import GuestTree

_MACHINE_ID = re.compile(rb"[0-9a-f]{32}\Z")
_ZONEINFO = b"zoneinfo/"


def find_hostname(tree: GuestTree, findings: Findings) -> str:
    """The configured name: the first line that is not a comment, as libguestfs looks for it."""
    for path in b"/etc/HOSTNAME", b"/etc/hostname":
        for line in findings.lines(tree, "hostname", path) or []:
            name = line.strip()
            if name and not name.startswith(b"#"):
                return decode(name)
    return _setting(tree, findings, "hostname", b"/etc/sysconfig/network", b"HOSTNAME")


def find_machine_id(tree: GuestTree, findings: Findings) -> str:
    """The 32 hexadecimal digits of machine-id(5); empty on a template."""
    for path in b"/etc/machine-id", b"/var/lib/dbus/machine-id":
        line = (findings.read(tree, "machine-id", path) or b"").strip()
        if _MACHINE_ID.match(line):
            return line.decode("ascii")
    return ""


def find_timezone(tree: GuestTree, findings: Findings) -> str:
    """The zone's name: where localtime(5) leads, else the distribution's own file."""
    target = link_target(tree, b"/etc/localtime")
    if _ZONEINFO in target:
        return decode(target.rpartition(_ZONEINFO)[2])
    for line in findings.lines(tree, "timezone", b"/etc/timezone") or []:
        if line.strip():
            return decode(line.strip())
    for key in b"ZONE", b"TIMEZONE":
        if zone := _setting(tree, findings, "timezone", b"/etc/sysconfig/clock", key):
            return zone
    return ""


_LOCALE_FILES = (
    (b"/etc/locale.conf", b"LANG"),
    (b"/etc/default/locale", b"LANG"),
    (b"/etc/sysconfig/i18n", b"LANG"),
    (b"/etc/sysconfig/language", b"RC_LANG"),
    (b"/etc/profile.d/20locale.sh", b"LANG"),
    (b"/etc/env.d/02locale", b"LANG"),
)


def find_locale(tree: GuestTree, findings: Findings) -> str:
    """The system's ``LANG``."""
    for path, key in _LOCALE_FILES:
        if value := _setting(tree, findings, "locale", path, key):
            return value
    return ""


def _setting(tree: GuestTree, findings: Findings, field: str, path: bytes, key: bytes) -> str:
    """The last value of ``key`` in a file of shell assignments."""
    value = b""
    for name, found in key_values(findings.lines(tree, field, path) or [], shell_unquote):
        if name.removeprefix(b"export ") == key:
            value = _default_value(found)
    return decode(value)


def _default_value(value: bytes) -> bytes:
    # Alpine's profile says LANG=${LANG:-C.UTF-8}.
    match = re.fullmatch(rb"\$\{\w+:-([^}]*)\}", value)
    return match[1] if match else value
