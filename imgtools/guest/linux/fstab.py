"""Parse ``/etc/fstab``, ``crypttab`` and ``mdadm.conf``: text to records, no devices looked up.

A line that makes no sense is reported and skipped; libguestfs gives up on the whole guest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imgtools.guest.linux.findings import Findings, decode

MAX_ENTRIES = 2000
_OCTAL = re.compile(rb"\\([0-7]{3})")

# Mountpoints that hold nothing of the guest, and devices that are not disks (as libguestfs).
_IGNORED_POINTS = ("/dev", "/proc", "/selinux", "/sys")
_IGNORED_BELOW = ("/dev/", "/media/", "/proc/", "/selinux/", "/sys/")
_REMOVABLE = re.compile(r"/dev/(fd\d|cd\d|floppy\Z|cdrom\Z|iso9660/)")


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """A line of fstab; ``point`` is canonical (``/usr/local``) or a word (``none``, ``swap``)."""

    spec: str
    point: str
    type: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of ``name=value`` among the options."""
        for option in self.options:
            key, equals, value = option.partition("=")
            if key == name and equals:
                return value
        return None


@dataclass(frozen=True, slots=True)
class CryptEntry:
    """A line of crypttab: the mapper name and the device beneath."""

    name: str
    spec: str


@dataclass(frozen=True, slots=True)
class MdEntry:
    """An ARRAY line of mdadm.conf; ``uuid`` is 32 hexadecimal digits."""

    device: str
    uuid: str


def parse_fstab(lines: list[bytes], findings: Findings) -> list[FstabEntry]:
    """The entries that may concern a disk of the guest."""
    entries = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        if len(fields) < 3:
            findings.warn("fstab", f"line {number} makes no sense: {decode(line[:80])!r}")
            continue
        entry = _entry(fields)
        if _concerns_disks(entry):
            entries.append(entry)
        if len(entries) >= MAX_ENTRIES:
            findings.warn("fstab", f"more than {MAX_ENTRIES} entries; the rest is ignored")
            break
    return entries


def _entry(fields: list[bytes]) -> FstabEntry:
    point = unescape(fields[1])
    if point.startswith(b"/"):
        point = b"/" + b"/".join(part for part in point.split(b"/") if part)
    options = tuple(decode(o) for o in fields[3].split(b",")[:64]) if len(fields) > 3 else ()
    return FstabEntry(decode(unescape(fields[0])), decode(point), decode(fields[2]), options)


def _concerns_disks(entry: FstabEntry) -> bool:
    if _REMOVABLE.match(entry.spec):
        return False
    if entry.point in _IGNORED_POINTS or entry.point.startswith(_IGNORED_BELOW):
        return False
    return ".." not in entry.point.split("/") and "\0" not in entry.point


def unescape(field: bytes) -> bytes:
    r"""A field with ``\040`` and its like replaced, as fstab(5) writes blanks."""
    if b"\\" not in field:
        return field
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), field)


def parse_crypttab(lines: list[bytes]) -> list[CryptEntry]:
    """The entries of crypttab(5)."""
    entries = []
    for line in lines[:MAX_ENTRIES]:
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith(b"#"):
            entries.append(CryptEntry(decode(fields[0]), decode(unescape(fields[1]))))
    return entries


def parse_mdadm(lines: list[bytes]) -> list[MdEntry]:
    """The ARRAY lines of mdadm.conf(5), continuation lines joined."""
    joined: list[bytes] = []
    for line in lines[:MAX_ENTRIES]:
        if line[:1] in (b" ", b"\t") and joined:
            joined[-1] += b" " + line.strip()
        else:
            joined.append(line)
    entries = []
    for line in joined:
        words = line.split(b"#", 1)[0].split()
        if len(words) < 2 or not re.fullmatch(rb"(?i)arr(ay?)?", words[0]):
            continue
        for word in words[2:]:
            uuid = re.sub(rb"[:.\- ]", b"", word[5:]).lower()
            if word[:5].lower() == b"uuid=" and re.fullmatch(rb"[0-9a-f]{32}", uuid):
                entries.append(MdEntry(decode(words[1]), decode(uuid)))
    return entries
