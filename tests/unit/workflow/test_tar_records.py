"""Headers of members that the fixed block has no room for, read back by Python's tarfile."""

from __future__ import annotations

import io
import stat
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.model.files import Stat
from imgtools.workflow.tar_records import acl_text, header

pytestmark = pytest.mark.unit

EMPTY = Stat(ino=1, mode=stat.S_IFREG | 0o640, nlink=1, uid=0, gid=0, size=0)


def read_back(raw: bytes) -> tarfile.TarInfo:
    with tarfile.open(fileobj=io.BytesIO(raw + bytes(1024)), errors="surrogateescape") as tar:
        (found,) = tar.getmembers()
    return found


names = st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw and b"/" not in raw)


@given(name=names, folder=st.booleans())
def test_any_name(name: bytes, folder: bool) -> None:
    mode = (stat.S_IFDIR if folder else stat.S_IFREG) | 0o755
    whole = b"./" + name + (b"/" if folder else b"")
    found = read_back(header(whole, replace(EMPTY, mode=mode)))
    assert found.name.encode("utf-8", "surrogateescape") == whole.rstrip(b"/")
    assert found.isdir() is folder


@given(target=names)
def test_any_target(target: bytes) -> None:
    found = read_back(header(b"./x", replace(EMPTY, mode=stat.S_IFLNK | 0o777), target=target))
    assert found.linkname.encode("utf-8", "surrogateescape") == target


@given(
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    mtime=st.integers(-(1 << 62), 1 << 62),
)
def test_any_number(uid: int, gid: int, mtime: int) -> None:
    found = read_back(header(b"./x", replace(EMPTY, uid=uid, gid=gid, mtime_ns=mtime)))
    assert (found.uid, found.gid) == (uid, gid)
    assert abs(found.mtime - mtime / 10**9) <= abs(mtime) / 10**9 * 1e-15 + 1e-9


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 1 << 60])
def test_any_size(size: int) -> None:
    info = tarfile.TarInfo.frombuf(
        header(b"./x", replace(EMPTY, size=size))[-512:], "utf-8", "strict"
    )
    assert info.size == (size if size < 8**11 else 0)
    assert (b"size=%d\n" % size in header(b"./x", replace(EMPTY, size=size))) is (size >= 8**11)


def test_the_length_of_a_record_counts_itself() -> None:
    for length in range(80, 120):
        raw = header(b"./x", EMPTY, more={b"SCHILY.xattr.user.a": b"v" * length})
        assert read_back(raw).pax_headers["SCHILY.xattr.user.a"] == "v" * length


def test_acls_of_an_unknown_kind_are_left_out() -> None:
    assert acl_text(b"") is None
    assert acl_text(b"\x03\0\0\0") is None
    assert acl_text(b"\x02\0\0\0" + b"\x40\0\x07\0\0\0\0\0") is None
    assert acl_text(b"\x02\0\0\0" + b"\x01\0\x06\0\xff\xff\xff\xff") == b"user::rw-\n"
