"""Lines of ls, column by column."""

from __future__ import annotations

import pytest

from imgtools.cli.listing import LineFormat, long_directory, long_line
from imgtools.model.files import Stat
from imgtools.workflow.ls import Entry

pytestmark = pytest.mark.unit

NOW = 1_700_000_000
DAY = 86400


def raw(name: bytes) -> bytes:
    return name


def stat(mode: int = 0o100644, **fields: int) -> Stat:
    base = {"ino": 12, "nlink": 1, "uid": 0, "gid": 0, "size": 0}
    return Stat(mode=mode, **{**base, **fields})


@pytest.mark.parametrize(
    ("mode", "letter"),
    [
        (0o100644, "-"), (0o040755, "d"), (0o120777, "l"), (0o060660, "b"), (0o020666, "c"),
        (0o010600, "p"), (0o140755, "s"), (0o150000, "u"),
    ],
)  # fmt: skip
def test_types(mode: int, letter: str) -> None:
    line = long_line(Entry(name=b"/x", stat=stat(mode)), LineFormat(), raw)
    assert line.decode() == f"{letter} {mode & 0o7777:04o}          0 /x"


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (LineFormat(), "- 4711       1536 /x"),
        (LineFormat(human=True), "- 4711       1.5K /x"),
        (LineFormat(csv=True), "-,4711,1536,/x"),
        (LineFormat(uids=True), "- 4711       1536 1000   42 /x"),
        (LineFormat(csv=True, uids=True), "-,4711,1536,1000,  42,/x"),
        (
            LineFormat(times="time_t", now=NOW),
            "- 4711       1536 1699999999 1699913600 1700000010 /x",
        ),
        (LineFormat(times="relative", now=NOW), "- 4711       1536        1    86400      -10 /x"),
        (LineFormat(times="days", now=NOW), "- 4711       1536   0   1   0 /x"),
        (LineFormat(extra=True), "- 4711       1536 8:18 12 1 8:1 3 /x"),
        (LineFormat(checksum=True), "- 4711       1536 abc /x"),
        (LineFormat(csv=True, checksum=True), "-,4711,1536,abc,/x"),
    ],
)
def test_columns(form: LineFormat, line: str) -> None:
    found = stat(
        0o104711, uid=1000, gid=42, size=1536, blocks=3, rdev=0x801,
        atime_ns=(NOW - 1) * 10**9 + 999, mtime_ns=(NOW - DAY) * 10**9, ctime_ns=(NOW + 10) * 10**9,
    )  # fmt: skip
    entry = Entry(name=b"/x", stat=found, device="/dev/sdb2", checksum="abc")
    assert long_line(entry, form, raw).decode() == line


def test_links_and_odd_names() -> None:
    entry = Entry(name=b'/a "b", c', stat=stat(0o120777), target=b"x y")
    assert long_line(entry, LineFormat(), raw) == b'l 0777          0 /a "b", c -> x y'
    assert long_line(entry, LineFormat(csv=True), raw) == b'l,0777,0,"/a ""b"", c","x y"'
    folder = Entry(name=b"/d", stat=stat(0o040755))
    assert long_line(folder, LineFormat(csv=True, checksum=True), raw) == b"d,0755,0,,/d"
    assert long_line(folder, LineFormat(checksum=True), raw) == b"d 0755          0 /d"


@pytest.mark.parametrize("seconds", [-(2**63), 2**62, -1, 2**40])
def test_impossible_times_do_not_stop_a_listing(seconds: int) -> None:
    entry = Entry(name=b"/x", stat=stat(mtime_ns=seconds * 10**9))
    for times in ("iso", "time_t", "relative", "days"):
        assert long_line(entry, LineFormat(times=times, now=NOW), raw).endswith(b" /x")  # type: ignore[arg-type]
    assert long_directory([entry], now=NOW, show=raw)


def test_a_directory_as_ls_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    entries = [
        Entry(name=b".", stat=stat(0o040755, nlink=12, size=4096, blocks=8), flag="."),
        Entry(name=b"acl", stat=stat(size=123456, blocks=9, uid=1000), flag="+"),
        Entry(name=b"link", stat=stat(0o120777, size=3, gid=42), target=b"acl"),
        Entry(name=b"null", stat=stat(0o020666, rdev=0x103, mtime_ns=NOW * 10**9)),
    ]
    assert [line.decode() for line in long_directory(entries, now=NOW, show=raw)] == [
        "total 9",
        "drwxr-xr-x. 12    0  0   4096 Jan  1  1970 .",
        "-rw-r--r--+  1 1000  0 123456 Jan  1  1970 acl",
        "lrwxrwxrwx   1    0 42      3 Jan  1  1970 link -> acl",
        "crw-rw-rw-   1    0  0   1, 3 Nov 14 22:13 null",
    ]


def test_an_empty_directory_of_a_broken_guest() -> None:
    assert long_directory([], now=NOW, show=raw) == [b"total 0"]
