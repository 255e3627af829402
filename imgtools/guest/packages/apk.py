"""Packages of Alpine: ``/lib/apk/db/installed``.

Format: Alpine's "Apk spec": records of ``X:value`` lines, one letter a field, ended by an empty
line.  apk-tools 3 moved the file to ``/usr/lib/apk/db``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from imgtools.guest.packages.application import Application, Collection, split_version, text
from imgtools.guest.tree import GuestTree

INSTALLED = (b"/lib/apk/db/installed", b"/usr/lib/apk/db/installed")
MAX_INSTALLED = 64 << 20
MAX_LINE = 1 << 16
_KEPT = frozenset(b"PVATUom")


def read_apk(tree: GuestTree, found: Collection) -> bool:
    """Collect the packages of the guest; False if it has no apk database."""
    for path in INSTALLED:
        if tree.is_file(path):
            with tree.open(path) as stream:
                parse_installed(stream, found)
            return True
    return False


def parse_installed(stream: BinaryIO, found: Collection) -> None:
    """Collect the packages of an ``installed`` file."""
    record: dict[int, bytes] = {}
    for line in bounded_lines(stream, found):
        if not line:
            _add(record, found)
            record = {}
            if found.full:
                found.complain("too many packages; the rest is not listed")
                return
        elif line[1:2] == b":" and line[0] in _KEPT:
            record[line[0]] = line[2:]
    _add(record, found)


def _add(record: dict[int, bytes], found: Collection) -> None:
    name, version = record.get(ord("P")), record.get(ord("V"))
    parts = split_version(version) if version is not None else None
    if not name or parts is None:
        return
    found.add(
        Application(
            name=text(name),
            epoch=parts[0],
            version=text(parts[1]),
            release=text(parts[2].removeprefix(b"r")),
            arch=text(record.get(ord("A"), b"")),
            publisher=text(record.get(ord("m"), b"")),
            url=text(record.get(ord("U"), b"")),
            source_package=text(record.get(ord("o"), b"")),
            description=text(record.get(ord("T"), b"")),
        )
    )


def bounded_lines(stream: BinaryIO, found: Collection) -> Iterator[bytes]:
    """The lines of a file, each cut at `MAX_LINE` bytes, the file at `MAX_INSTALLED`."""
    taken = 0
    rest = b""
    while block := stream.read(1 << 18):
        taken += len(block)
        if taken > MAX_INSTALLED:
            found.complain("the package database is too large; the rest is unread")
            return
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[:MAX_LINE]
        yield from lines
    yield rest
