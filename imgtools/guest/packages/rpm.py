"""Packages of Fedora, RHEL, SUSE and their kin: rpm's database in each of its forms.

rpm has kept headers in Berkeley DB (``Packages``, until 2020), SQLite (``rpmdb.sqlite``) and ndb
(``Packages.db``, SUSE); an upgraded guest may hold a stale older one beside the live one, so the
newer form wins.  libguestfs runs the host's librpm on the guest's database, which fails for
SQLite on Debian; ours needs no librpm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from imgtools.guest.packages.application import Collection
from imgtools.guest.packages.rpm_bdb import bdb_blobs
from imgtools.guest.packages.rpm_header import parse_header
from imgtools.guest.packages.rpm_ndb import ndb_blobs
from imgtools.guest.packages.rpm_sqlite import sqlite_blobs
from imgtools.guest.tree import GuestTree, show

FOLDERS = (
    b"/usr/lib/sysimage/rpm",
    b"/var/lib/rpm",
    b"/usr/share/rpm",  # rpm-ostree
    b"/usr/lib/rpm-db",
)
SQLITE, NDB, BDB = b"rpmdb.sqlite", b"Packages.db", b"Packages"


def read_rpm(tree: GuestTree, found: Collection) -> bool:
    """Collect the packages of the guest; False if it has no rpm database."""
    database = find_database(tree)
    if database is None:
        return False
    folder, name = database
    path = folder + b"/" + name
    with tree.open(path) as stream:
        if name == SQLITE:
            wal = path + b"-wal"
            with tree.open(wal) if tree.is_file(wal) else _nothing() as log:
                collect(sqlite_blobs(stream, log, found), show(path), found)
        else:
            reader: Callable[[BinaryIO, Collection], Iterator[bytes]]
            reader = ndb_blobs if name == NDB else bdb_blobs
            collect(reader(stream, found), show(path), found)
    # libguestfs collects into a stack and sorts by name: namesakes end up last one first.
    found.applications.reverse()
    return True


def find_database(tree: GuestTree) -> tuple[bytes, bytes] | None:
    """The folder and name of the guest's rpm database."""
    for name in (SQLITE, NDB, BDB):
        for folder in FOLDERS:
            if tree.is_file(folder + b"/" + name):
                return folder, name
    return None


def collect(blobs: Iterator[bytes], where: str, found: Collection) -> None:
    """Collect the packages of header blobs; damaged ones are counted and left out."""
    bad = 0
    for blob in blobs:
        application = parse_header(blob)
        if application is None:
            bad += 1
            continue
        found.add(application)
        if found.full:
            found.complain("too many packages; the rest is not listed")
            break
    if bad:
        found.complain(f"{where}: {bad} damaged package headers are left out")


def _nothing() -> BinaryIO:
    import io

    return io.BytesIO()
