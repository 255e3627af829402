"""MAC addresses by which netplan finds its interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, rewrite

# The second is what Ubuntu's installer has cloud-init write into the first at the next boot.
FILES = ("/etc/netplan/*.yaml", "/etc/cloud/cloud.cfg.d/*.cfg")
KEY = re.compile(rb"^( *)(?:\"([^\"]+)\"|'([^']+)'|([^\s#:'\"][^:#]*?)) *: *(.*?) *(?:#.*)?$")
ADDRESS = re.compile(rb"['\"]?(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}['\"]?\Z")
INLINE = re.compile(rb"\{ *macaddress *: *['\"]?[0-9A-Fa-f:]{17}['\"]? *\}\Z")
# Names that the kernel and udev give; anything else is netplan's own word for the interface.
INTERFACE = re.compile(rb"(en[opsxP]|eth|ib|wl[opsx]|wlan)[0-9A-Za-z]+\Z")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob(*FILES):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, without_macs)


def without_macs(text: bytes) -> bytes:
    """Take `match: macaddress` from interfaces that are then found by their name, and `macaddress`.

    Works on lines, so that comments and order stay.  An interface whose name is not one that a
    card has keeps its match: nothing else would find it.
    """
    lines = text.splitlines(keepends=True)
    drop: set[int] = set()
    for index, line in enumerate(lines):
        key = _key(line)
        if key is None:
            continue
        if key[1] == b"match":
            drop |= _unneeded(lines, index, key[0], key[2])
        elif key[1] == b"macaddress" and ADDRESS.match(key[2]):
            above = _section(lines, index, key[0])[0] - 1
            parent = _key(lines[above]) if above >= 0 else None
            drop |= {index} if parent is not None and parent[1] != b"match" else set()
    empty = {_section(lines, index, _indent(lines[index]))[0] - 1 for index in drop}
    for index in empty:
        if _is_emptied(lines, index, drop):
            # A key without a value is no mapping, which netplan refuses.
            lines[index] = lines[index].rstrip(b"\r\n").rstrip() + b" {}\n"
    return b"".join(line for index, line in enumerate(lines) if index not in drop)


def _is_emptied(lines: list[bytes], index: int, drop: set[int]) -> bool:
    """True for the key of a mapping of which everything is dropped."""
    key = _key(lines[index]) if index >= 0 else None
    if key is None or key[2]:
        return False
    below = _children(lines, index + 1, len(lines), key[0])
    return all(child in drop or _key(lines[child]) is None for child in below)


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip(b" "))


def _unneeded(lines: list[bytes], index: int, indent: int, value: bytes) -> set[int]:
    """The lines of this match, and set-name, which is not allowed without one."""
    start, end = _section(lines, index, indent)
    names = {_key(lines[at]): at for at in range(start, end)}
    siblings = {key[1]: (at, key[2]) for key, at in names.items() if key and key[0] == indent}
    parent = _key(lines[start - 1]) if start else None
    if parent is None or not INTERFACE.match(parent[1]):
        return set()
    at, name = siblings.get(b"set-name", (None, b""))
    if name.strip(b"'\"") not in (b"", parent[1]):
        return set()
    children = [] if value else _children(lines, index + 1, end, indent)
    keys = [_key(lines[child]) for child in children]
    only_mac = [key[1] for key in keys if key] == [b"macaddress"]
    if INLINE.match(value) or only_mac:
        return {index, *children} | ({at} if at is not None else set())
    return {
        child for child, key in zip(children, keys, strict=True) if key and key[1] == b"macaddress"
    }


def _section(lines: list[bytes], index: int, indent: int) -> tuple[int, int]:
    """The lines around ``index`` that are at least as deep, empty ones and comments included."""
    start, end = index, index + 1
    while start > 0 and _is_deeper(lines[start - 1], indent):
        start -= 1
    while end < len(lines) and _is_deeper(lines[end], indent):
        end += 1
    return start, end


def _children(lines: list[bytes], start: int, end: int, indent: int) -> list[int]:
    children = []
    for at in range(start, end):
        if not _is_deeper(lines[at], indent + 1):
            break
        children.append(at)
    return children


def _is_deeper(line: bytes, indent: int) -> bool:
    bare = line.strip()
    return not bare or bare.startswith(b"#") or _indent(line) >= indent


def _key(line: bytes) -> tuple[int, bytes, bytes] | None:
    found = KEY.match(line.rstrip(b"\r\n"))
    if found is None:
        return None
    return len(found[1]), found[2] or found[3] or found[4], found[5]


operation = Operation(
    name="netplan-mac",
    heading="Remove MAC addresses from netplan's configuration",
    description="Interfaces that are found by this machine's MAC address are found by their name "
    "(enp1s0, eth0), where that is one; otherwise a clone would have no network. An address that "
    "an interface shall pretend to have goes, too.",
    plan=_plan,
)
