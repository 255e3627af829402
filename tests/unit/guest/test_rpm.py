"""rpm: header blobs, and databases that lie.  Real databases are in tests/direct."""

from __future__ import annotations

import io
import sqlite3
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.packages import collect_packages
from imgtools.guest.packages.application import Application, Collection
from imgtools.guest.packages.rpm_bdb import bdb_blobs
from imgtools.guest.packages.rpm_header import parse_header
from imgtools.guest.packages.rpm_ndb import ndb_blobs
from imgtools.guest.packages.rpm_sqlite import sqlite_blobs
from tests.unit.guest.guests import guest_tree

pytestmark = pytest.mark.unit

INT32, STRING, ARRAY, I18N = 4, 6, 8, 9


def header(*entries: tuple[int, int, bytes], lie: int = 0) -> bytes:
    """A header blob; ``lie`` is added to every offset."""
    index = data = b""
    for tag, kind, value in entries:
        index += struct.pack(">IIII", tag, kind, len(data) + lie, 1)
        data += value
    return struct.pack(">II", len(entries), len(data)) + index + data


BASH = header(
    (1003, INT32, struct.pack(">I", 3)),
    (1000, STRING, b"bash\0"),
    (1001, STRING, b"5.1.8\0"),
    (1002, STRING, b"6.el9\0"),
    (1004, I18N, b"The shell\0Die Shell\0"),
    (1022, STRING, b"x86_64\0"),
    (1015, STRING, b"Packager\0"),
    (1044, STRING, b"bash-5.1.8-6.el9.src.rpm\0"),
)


def test_header() -> None:
    assert parse_header(BASH) == Application(
        name="bash",
        epoch=3,
        version="5.1.8",
        release="6.el9",
        arch="x86_64",
        publisher="Packager",
        source_package="bash-5.1.8-6.el9.src.rpm",
        summary="The shell",
    )


@pytest.mark.parametrize("length", range(0, len(BASH), 7))
def test_a_truncated_header_is_no_package(length: int) -> None:
    assert parse_header(BASH[:length]) is None


@pytest.mark.parametrize(
    "blob",
    [
        header((1000, STRING, b"bash\0"), lie=1 << 20),
        struct.pack(">II", 0xFFFFFFFF, 0) + b"x" * 64,
        struct.pack(">II", 1, 0xFFFFFFFF) + b"x" * 64,
        struct.pack(">II", 0, 0),
        header((1000, INT32, b"\0\0\0\1")),
        header((1000, STRING, b"\0")),
    ],
)
def test_a_header_that_lies_is_no_package(blob: bytes) -> None:
    assert parse_header(blob) is None


def test_a_negative_epoch_is_none() -> None:
    blob = header((1000, STRING, b"x\0"), (1003, INT32, b"\xff\xff\xff\xff"))
    found = parse_header(blob)
    assert found is not None
    assert found.epoch == 0


@given(st.binary(max_size=200))
def test_no_blob_ends_the_parser(blob: bytes) -> None:
    parse_header(blob)
    parse_header(struct.pack(">II", len(blob) // 20, len(blob) // 5) + blob)


# --- sqlite --------------------------------------------------------------------------------------


def database(path: Path, *statements: str, blobs: tuple[bytes, ...] = ()) -> bytes:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    if blobs:
        connection.executemany(
            "INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in blobs]
        )
    connection.commit()
    connection.close()
    return path.read_bytes()


PACKAGES = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"


def sqlite(data: bytes, log: bytes = b"") -> tuple[list[bytes], Collection]:
    found = Collection()
    return list(sqlite_blobs(io.BytesIO(data), io.BytesIO(log), found)), found


def test_sqlite(tmp_path: Path) -> None:
    data = database(tmp_path / "db", PACKAGES, blobs=(BASH, b"junk"))
    blobs, found = sqlite(data)
    assert blobs == [BASH, b"junk"]
    assert not found.complaints
    listed = collect_packages(guest_tree({"var/lib/rpm/rpmdb.sqlite": data}), "rpm")
    assert [a.name for a in listed.applications] == ["bash"]
    assert "1 damaged" in listed.complaints[0]


def test_what_is_only_in_the_log_is_seen(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(PACKAGES)
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (BASH,))
    files = {
        "var/lib/rpm/rpmdb.sqlite": (tmp_path / "db").read_bytes(),
        "var/lib/rpm/rpmdb.sqlite-wal": (tmp_path / "db-wal").read_bytes(),
    }
    listed = collect_packages(guest_tree(files), "rpm")
    connection.close()
    assert [a.name for a in listed.applications] == ["bash"]


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE Other (x)",),
        ("CREATE VIEW Packages AS SELECT 1 AS hnum, zeroblob(1000000000) AS blob",),
        (
            """CREATE VIEW Packages AS WITH RECURSIVE c(hnum, blob) AS
            (SELECT 1, x'00' UNION ALL SELECT hnum + 1, blob FROM c) SELECT * FROM c""",
        ),
        (
            """CREATE TABLE Packages
            (hnum INTEGER PRIMARY KEY, blob AS (zeroblob(1000000000)) VIRTUAL)""",
            "INSERT INTO Packages (hnum) VALUES (1)",
        ),
    ],
)
def test_a_database_that_is_a_program_is_not_run(
    tmp_path: Path, statements: tuple[str, ...]
) -> None:
    blobs, found = sqlite(database(tmp_path / "db", *statements))
    assert blobs == []
    assert found.complaints


def test_sqlite_garbage(tmp_path: Path) -> None:
    data = bytearray(database(tmp_path / "db", PACKAGES, blobs=(BASH,) * 500))
    for wrong in (b"", b"garbage" * 1000, bytes(data[:100]), bytes(data[: len(data) // 2])):
        _, found = sqlite(wrong)
        assert found.complaints
    for position in range(100, len(data), 997):
        damaged = bytearray(data)
        damaged[position : position + 16] = b"\xff" * 16
        sqlite(bytes(damaged))


# --- ndb -----------------------------------------------------------------------------------------


def ndb(*blobs: bytes, pages: int = 1) -> bytes:
    slots = struct.pack("<4sIIII", b"RpmP", 0, 1, pages, len(blobs) + 1).ljust(32, b"\0")
    body = b""
    for number, blob in enumerate(blobs, 1):
        whole = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        whole += b"\0" * (-len(whole) % 16)
        start = (4096 + len(body)) // 16
        slots += struct.pack("<4sIII", b"Slot", number, start, len(whole) // 16)
        body += whole
    return slots.ljust(4096, b"\0") + body


def read_ndb(data: bytes) -> tuple[list[bytes], Collection]:
    found = Collection()
    return list(ndb_blobs(io.BytesIO(data), found)), found


def test_ndb() -> None:
    blobs, found = read_ndb(ndb(BASH, b"other"))
    assert blobs == [BASH, b"other"]
    assert not found.complaints


def test_ndb_that_lies() -> None:
    good = ndb(BASH)
    assert read_ndb(good[:20])[1].complaints
    assert read_ndb(b"\0" * 8192)[1].complaints
    assert read_ndb(ndb(BASH, pages=1 << 30))[1].complaints
    length = good.replace(struct.pack("<I", len(BASH)), struct.pack("<I", 0x7FFFFFFF), 1)
    assert read_ndb(length)[0] == []
    beyond = good.replace(struct.pack("<I", 256), struct.pack("<I", 0xFFFFFFF0), 1)
    assert read_ndb(beyond)[0] == []
    assert read_ndb(good[:-20])[0] == []


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_ndb_ends_the_reader(junk: bytes, at: int) -> None:
    data = bytearray(ndb(BASH, BASH))
    data[at : at + len(junk)] = junk
    read_ndb(bytes(data))


# --- Berkeley DB ---------------------------------------------------------------------------------

PAGE = 512


def bdb_page(kind: int, body: bytes, *, next_page: int = 0, count: int = 0, used: int = 0) -> bytes:
    head = struct.pack("<QIIIHHBB", 0, 0, 0, next_page, count, used, 0, kind)
    return (head + body).ljust(PAGE, b"\0")


def bdb_meta(last: int) -> bytes:
    head = struct.pack("<QIIII", 0, 0, 0x061561, 9, PAGE).ljust(32, b"\0")
    return (head + struct.pack("<I", last)).ljust(PAGE, b"\0")


def bdb_entry(value: bytes) -> bytes:
    """A hash page of one pair: key 1, ``value`` as the raw item."""
    key = b"\1" + struct.pack("<I", 1)
    page = bytearray(bdb_page(13, b"", count=2))
    page[26:30] = struct.pack("<HH", PAGE - len(key), PAGE - len(key) - len(value))
    page[PAGE - len(key) :] = key
    page[PAGE - len(key) - len(value) : PAGE - len(key)] = value
    return bytes(page)


def read_bdb(data: bytes) -> tuple[list[bytes], Collection]:
    found = Collection()
    return list(bdb_blobs(io.BytesIO(data), found)), found


def overflow(page: int, length: int) -> bytes:
    return struct.pack("<BxxxII", 3, page, length)


def test_bdb_inline_and_overflow() -> None:
    long = header((1000, STRING, b"long\0"), (1005, I18N, b"y" * 600 + b"\0"))
    room = PAGE - 26
    data = (
        bdb_meta(4)
        + bdb_entry(b"\1" + BASH)
        + bdb_entry(overflow(3, len(long)))
        + bdb_page(7, long[:room], next_page=4, used=room)
        + bdb_page(7, long[room:], used=len(long) - room)
    )
    blobs, found = read_bdb(data)
    assert blobs == [BASH, long]
    assert not found.complaints


def test_bdb_that_loops_or_lies() -> None:
    loop = bdb_meta(2) + bdb_entry(overflow(2, 1 << 20)) + bdb_page(7, b"x", next_page=2, used=1)
    assert read_bdb(loop)[1].complaints
    full = bdb_page(7, b"x" * (PAGE - 26), next_page=2, used=PAGE - 26)
    endless, _ = read_bdb(bdb_meta(2) + bdb_entry(overflow(2, 1 << 20)) + full)
    # A chain that is a ring goes on only as long as the blob it promised.
    assert [len(blob) for blob in endless] == [1 << 20]
    assert read_bdb(bdb_meta(1) + bdb_entry(overflow(9, 100)))[1].complaints
    assert read_bdb(bdb_meta(1) + bdb_entry(overflow(1, 100)))[1].complaints
    assert read_bdb(bdb_meta(1) + bdb_entry(overflow(1, 0xFFFFFFFF)))[1].complaints
    assert read_bdb(bdb_meta(0xFFFFFFFF) + bdb_entry(b"\1" + BASH))[0] == [BASH]
    empty = bdb_meta(2) + bdb_entry(overflow(2, 50)) + bdb_page(7, b"", next_page=2, used=0)
    assert read_bdb(empty)[1].complaints
    assert read_bdb(b"")[1].complaints
    assert read_bdb(b"\0" * 4096)[1].complaints


@given(st.binary(max_size=60), st.integers(PAGE, 3 * PAGE))
def test_no_bdb_ends_the_reader(junk: bytes, at: int) -> None:
    data = bytearray(bdb_meta(2) + bdb_entry(b"\1" + BASH) + bdb_entry(overflow(1, 99)))
    data[at : at + len(junk)] = junk
    read_bdb(bytes(data))
