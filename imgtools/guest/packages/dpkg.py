"""Packages of Debian and its kin: ``/var/lib/dpkg/status`` and ``status.d``.

Format: deb-control(5) paragraphs.  Which count and how a version is split follows libguestfs's
``inspect_list_applications2``: a paragraph counts when its Status holds the word "installed" and
it has a Version; the description is the continuation lines, each without its first blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from imgtools.guest.packages.application import Application, Collection, split_version, text
from imgtools.guest.tree import GuestTree

STATUS = b"/var/lib/dpkg/status"
STATUS_D = b"/var/lib/dpkg/status.d"
MAX_PARAGRAPH = 1 << 20
MAX_STATUS = 64 << 20
MAX_STATUS_D = 20_000
_BLOCK = 1 << 18

_FIELD = re.compile(
    rb"^(Package|Status|Version|Architecture|Homepage|Source|Maintainer|Description): "
    rb"([^\n]*)((?:\n [^\n]*)*)",
    re.MULTILINE,
)


def read_dpkg(tree: GuestTree, found: Collection) -> bool:
    """Collect the packages of the guest; False if it has no dpkg database."""
    status = tree.is_file(STATUS)
    if status:
        with tree.open(STATUS) as stream:
            parse_status(stream, found)
    names = [n for n in tree.listdir(STATUS_D) if not n.endswith(b".md5sums")]
    if len(names) > MAX_STATUS_D:
        found.complain(f"status.d has {len(names)} files; {MAX_STATUS_D} are read")
    for name in names[:MAX_STATUS_D]:
        path = STATUS_D + b"/" + name
        if found.full:
            break
        if tree.is_file(path):
            with tree.open(path) as stream:
                # Files of distroless images have no Status: to be there is to be installed.
                parse_status(stream, found, assume_installed=True)
    return status or bool(names)


def parse_status(stream: BinaryIO, found: Collection, *, assume_installed: bool = False) -> None:
    """Collect the packages of one status file."""
    for paragraph in _paragraphs(stream, found):
        application = _application(paragraph, assume_installed=assume_installed)
        if application is not None:
            found.add(application)
            if found.full:
                found.add(application)  # says that the list is cut
                return


def _paragraphs(stream: BinaryIO, found: Collection) -> Iterator[bytes]:
    rest = b""
    skipping = False
    taken = 0
    while block := stream.read(_BLOCK):
        taken += len(block)
        if taken > MAX_STATUS:
            found.complain(f"dpkg status is larger than {MAX_STATUS >> 20} MiB; the rest is unread")
            return
        paragraphs = (rest + block).split(b"\n\n")
        rest = paragraphs.pop()
        if skipping and paragraphs:
            paragraphs.pop(0)
            skipping = False
        yield from paragraphs
        if len(rest) > MAX_PARAGRAPH:
            if not skipping:
                found.complain(f"a dpkg paragraph larger than {MAX_PARAGRAPH >> 20} MiB is skipped")
            # Only a final newline may matter: it can be the first half of a paragraph's end.
            rest, skipping = rest[-1:], True
    if not skipping:
        yield rest


def _application(paragraph: bytes, *, assume_installed: bool) -> Application | None:
    fields: dict[bytes, bytes] = {}
    description = b""
    for match in _FIELD.finditer(paragraph):
        key, value, more = match.groups()
        fields[key] = value
        if key == b"Description":
            description = more[2:].replace(b"\n ", b"\n")
    name, version = fields.get(b"Package"), fields.get(b"Version")
    status = fields.get(b"Status", b"installed" if assume_installed else b"")
    if not name or version is None or b"installed" not in status:
        return None
    parts = split_version(version)
    if parts is None:
        return None
    return Application(
        name=text(name),
        epoch=parts[0],
        version=text(parts[1]),
        release=text(parts[2]),
        arch=text(fields.get(b"Architecture", b"")),
        publisher=text(fields.get(b"Maintainer", b"")),
        url=text(fields.get(b"Homepage", b"")),
        source_package=text(fields.get(b"Source", b"").split(b" ", 1)[0]),
        summary=text(fields.get(b"Description", b"")),
        description=text(description),
    )
