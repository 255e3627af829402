"""Header blobs from ``rpmdb.sqlite``, with the guest's database kept on a short leash.

The file and its write-ahead log are copied into a private temporary folder and opened there.
An SQLite file is a program of sorts (views, triggers, generated columns): we refuse anything
but reading a real table ``Packages``, bound the time, and let no schema function run.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imgtools.guest.packages.application import Collection
from imgtools.guest.packages.rpm_header import MAX_DATA

MAX_DATABASE = 1 << 30
MAX_SECONDS = 60.0
_READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ))


def sqlite_blobs(database: BinaryIO, log: BinaryIO, found: Collection) -> Iterator[bytes]:
    """Yield the header blobs of the database, by package number."""
    with tempfile.TemporaryDirectory(prefix="imgtools-rpm-") as folder:
        path = Path(folder) / "rpmdb.sqlite"
        try:
            complete = _copy(database, path)
            logged = _copy(log, path.with_name("rpmdb.sqlite-wal"))
        except OSError as error:
            found.complain(f"rpmdb.sqlite: cannot be copied to {folder}: {error.strerror}")
            return
        if not complete or not logged:
            found.complain(f"rpmdb.sqlite: larger than {MAX_DATABASE >> 20} MiB")
            return
        try:
            yield from _select(path)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            found.complain(f"rpmdb.sqlite: damaged: {error}")


def _copy(source: BinaryIO, target: Path) -> bool:
    """Copy a bounded stream; False if it is too large.  An empty one leaves no file."""
    taken = 0
    with target.open("wb") as sink:
        while block := source.read(1 << 20):
            taken += len(block)
            if taken > MAX_DATABASE:
                return False
            sink.write(block)
    if not taken:
        target.unlink()
    return True


def _select(path: Path) -> Iterator[bytes]:
    # With a log the copy must be opened writable for SQLite to replay it; it is our copy.
    mode = "rw" if path.with_name(path.name + "-wal").exists() else "ro&immutable=1"
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_DATA)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, 10_000)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA mmap_size=0")
        deadline = time.monotonic() + MAX_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        connection.set_authorizer(_authorize)
        kind = connection.execute("SELECT type, sql FROM sqlite_schema WHERE name = 'Packages'")
        row = kind.fetchone()
        if row is None or row[0] != "table" or _has_virtual(row[1]):
            raise sqlite3.DatabaseError("no table Packages")
        for (blob,) in connection.execute("SELECT blob FROM Packages ORDER BY hnum"):
            yield blob if isinstance(blob, bytes) else b""
    finally:
        connection.close()


def _has_virtual(sql: object) -> bool:
    return not isinstance(sql, str) or sql.lstrip().upper().startswith("CREATE VIRTUAL")


def _authorize(action: int, *_details: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
