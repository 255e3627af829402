"""dpkg, apk, pacman: what counts as installed, how versions split, and what hostile files cost."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.packages import collect_packages
from imgtools.guest.packages.apk import parse_installed
from imgtools.guest.packages.application import (
    MAX_APPLICATIONS,
    Application,
    Collection,
    parse_epoch,
    split_version,
)
from imgtools.guest.packages.dpkg import MAX_PARAGRAPH, parse_status
from imgtools.guest.packages.pacman import parse_desc
from tests.unit.guest.guests import guest_tree, inspect_files

pytestmark = pytest.mark.unit


def dpkg(status: bytes) -> Collection:
    found = Collection()
    parse_status(io.BytesIO(status), found)
    return found


def apk(installed: bytes) -> Collection:
    found = Collection()
    parse_installed(io.BytesIO(installed), found)
    return found


FULL = b"""Package: vim
Status: install ok installed
Priority: optional
Maintainer: A Person <a@example.com>
Architecture: amd64
Source: vim-src (2:9.0)
Version: 2:9.0.1378-2+deb12u2
Conffiles:
 /etc/vim/vimrc 0123456789abcdef
Description: Vi IMproved
 First line.
 .
  indented line.
Homepage: https://www.vim.org/

"""


def test_dpkg_fields() -> None:
    assert dpkg(FULL).applications == [
        Application(
            name="vim",
            epoch=2,
            version="9.0.1378",
            release="2+deb12u2",
            arch="amd64",
            publisher="A Person <a@example.com>",
            url="https://www.vim.org/",
            source_package="vim-src",
            summary="Vi IMproved",
            description="First line.\n.\n indented line.",
        )
    ]


def paragraph(status: str, version: str = "1.0-1", name: str = "x") -> bytes:
    return f"Package: {name}\nStatus: {status}\nVersion: {version}\n\n".encode()


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ("install ok installed", True),
        ("hold ok installed", True),
        ("install reinstreq half-installed", True),
        ("deinstall ok config-files", False),
        ("install ok unpacked", False),
        ("", False),
    ],
)
def test_dpkg_status_words_count_as_for_libguestfs(status: str, counts: bool) -> None:
    assert bool(dpkg(paragraph(status)).applications) is counts


@pytest.mark.parametrize(
    "status",
    [
        b"Package: x\nStatus: install ok installed\n\n",  # no version
        b"Status: install ok installed\nVersion: 1\n\n",  # no name
        b"Package: \nStatus: install ok installed\nVersion: 1\n\n",
        b"Package: x\nStatus: install ok installed\nVersion: x:1\n\n",
        b"Package: x\nStatus: install ok installed\nVersion: 99999999999:1\n\n",
        b"\n\n\n\0\xff\n",
        b"",
    ],
)
def test_dpkg_paragraphs_that_name_no_package(status: bytes) -> None:
    assert dpkg(status).applications == []


def test_dpkg_last_paragraph_needs_no_blank_line() -> None:
    assert [a.name for a in dpkg(FULL.rstrip()).applications] == ["vim"]


def test_dpkg_across_reads_and_equal_names_in_file_order() -> None:
    many = b"".join(
        paragraph("install ok installed", f"1.{n}-1", "same" if n % 2 else f"p{n:06}")
        for n in range(20_000)
    )
    found = dpkg(many)
    assert len(found.applications) == 20_000
    same = [a.version for a in found.sorted() if a.name == "same"]
    assert same == [f"1.{n}" for n in range(1, 20_000, 2)]


def test_dpkg_not_utf8_is_kept() -> None:
    (found,) = dpkg(paragraph("install ok installed").replace(b" x", b" \xff\x1b")).applications
    assert found.name.encode("utf-8", "surrogateescape") == b"\xff\x1b"


def test_a_million_packages_are_cut_and_said() -> None:
    class Endless(io.RawIOBase):
        """A status file of a million records that is never in memory."""

        left = 1_000_000

        def read(self, size: int = -1) -> bytes:
            count = min(self.left, 2000)
            self.left -= count
            return paragraph("install ok installed") * count

    found = Collection()
    stream = Endless()
    tracemalloc.start()
    parse_status(stream, found)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.applications) == MAX_APPLICATIONS
    assert found.complaints
    assert stream.left > 0  # it stopped reading
    assert peak < 64 << 20


def test_one_endless_paragraph_is_skipped() -> None:
    huge = b"Package: huge\nStatus: install ok installed\nVersion: 1\nX: "
    found = dpkg(huge + b"y" * (3 * MAX_PARAGRAPH) + b"\n\n" + FULL)
    assert [a.name for a in found.applications] == ["vim"]
    assert len(found.complaints) == 1


def test_descriptions_are_bounded_in_all() -> None:
    text = b" " + b"z" * 60_000 + b"\n"
    one = b"Package: p\nStatus: install ok installed\nVersion: 1\nDescription: d\n" + text + b"\n"
    found = dpkg(one * 1000)
    assert len(found.applications) < 1000
    assert found.complaints


def test_status_d_of_distroless() -> None:
    files = {
        "var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
        "var/lib/dpkg/status.d/base.md5sums": b"0  x\n",
    }
    found = collect_packages(guest_tree(files), "deb")
    assert [a.name for a in found.applications] == ["base-files"]


def test_apk_fields() -> None:
    record = (
        b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nS:1\nT:the musl c library\n"
        b"U:https://musl.libc.org/\nL:MIT\no:musl-src\nm:Natanael <n@example.com>\nF:lib\n\n"
    )
    assert apk(record).applications == [
        Application(
            name="musl",
            version="1.2.4",
            release="2",
            arch="x86_64",
            publisher="Natanael <n@example.com>",
            url="https://musl.libc.org/",
            source_package="musl-src",
            description="the musl c library",
        )
    ]


def test_apk_hostile() -> None:
    assert apk(b"P:\nV:1\n\nP:x\n\nnonsense\n\nV:1-r1\n\n").applications == []
    assert [a.name for a in apk(b"P:x\nV:1" + b"9" * (1 << 20) + b"\n\n").applications] == ["x"]


DESC = b"""%NAME%
linux

%VERSION%
1:6.6.1.arch1-1

%BASE%
linux-src

%DESC%
The Linux kernel
second line

%ARCH%
x86_64

%URL%
https://kernel.org

%PACKAGER%
A B <ab@example.com>

"""


def test_pacman_fields() -> None:
    assert parse_desc(DESC) == Application(
        name="linux",
        epoch=1,
        version="6.6.1.arch1",
        release="1",
        arch="x86_64",
        publisher="A B <ab@example.com>",
        url="https://kernel.org",
        source_package="linux-src",
        description="The Linux kernel",
    )


@pytest.mark.parametrize("cut", [b"%NAME%", b"%VERSION%", b"%ARCH%", b"-1\n"])
def test_pacman_without_a_required_field(cut: bytes) -> None:
    assert parse_desc(DESC.replace(cut, b"")) is None


def test_pacman_damage_costs_the_package() -> None:
    base = "var/lib/pacman/local/"
    files = {
        base + "ALPM_DB_VERSION": b"9\n",
        base + "linux-1/desc": DESC,
        base + "huge-1/desc": b"x" * (1 << 20),
        base + "gone-1/files": b"",
        base + "bad-1/desc": b"%NAME%\nbad\n",
    }
    found = collect_packages(guest_tree(files), "pacman")
    assert [a.name for a in found.applications] == ["linux"]
    assert len(found.complaints) == 3


@given(st.binary(max_size=300))
def test_no_content_ends_a_reader(content: bytes) -> None:
    for reader in dpkg, apk:
        for found in reader(content).applications:
            assert found.name
    parse_desc(content)


@given(st.binary(max_size=30))
def test_split_version_loses_nothing(raw: bytes) -> None:
    parts = split_version(raw)
    if parts is not None:
        assert b":" not in raw or parts[0] == int(raw.split(b":", 1)[0])
        rest = raw.split(b":", 1)[-1]
        assert rest in (parts[1], parts[1] + b"-" + parts[2])


@pytest.mark.parametrize("digits", [b"", b"-1", b"1x", b"2147483648", b"9" * 5000, b" 1"])
def test_epochs_out_of_range(digits: bytes) -> None:
    assert parse_epoch(digits) is None


def test_a_missing_database_is_said() -> None:
    found = inspect_files({"etc/hosts": b"", "bin/": None, "etc/os-release": b"ID=ubuntu\n"})
    assert found.applications == ()
    assert [w.message for w in found.warnings if w.code == "inspect.applications"] == [
        "/dev/sda1: applications: no deb database"
    ]
