"""inspect's command line: what excludes what, XPath over stdin, the table's text made safe."""

from __future__ import annotations

import io
import sys

import pytest

from imgtools.cli.inspect_cmd import _print_guest
from imgtools.cli.main import run
from imgtools.guest.inspection import Inspection, Mountpoint, Service, User
from tests.unit.guest.guests import DEBIAN, inspect_files

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "words",
    [
        ("--xml", "--json", "-a", "x.img"),
        ("--xpath", "//x", "--json", "-a", "x.img"),
        ("--applications", "--no-applications", "-a", "x.img"),
        ("-a", "x.img", "surplus"),
        (),
    ],
)
def test_usage_errors(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_xpath_over_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = b"<operatingsystems><hostname>lemon</hostname></operatingsystems>"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(document)))
    assert run(["inspect", "--xpath", "//hostname/text()"]) == 0
    assert capsys.readouterr().out == "lemon\n"


def test_what_a_guest_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2Jb\udcff"
    user = User(name=evil, uid=0, gid=0, home=evil, shell=evil, password="set")
    guest = Inspection(
        root=evil,
        type="linux",
        pretty_name=evil,
        hostname=evil,
        mountpoints=(Mountpoint(path=evil, device=evil),),
        users=(user,),
        services=(Service(name=evil, manager="systemd", wanted_by=(evil,)),),
        firmware=("bios", "uefi"),
    )
    _print_guest(guest, applications=True, services=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b[2Jb\\xff" in out
    assert "BIOS and UEFI" in out


def test_the_table_of_a_guest(capsys: pytest.CaptureFixture[str]) -> None:
    _print_guest(inspect_files(DEBIAN), applications=True, services=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "/dev/sda1: Debian GNU/Linux 12 (bookworm)"
    assert "  System        linux, debian 12.11, x86_64" in lines
    assert "  Packages      1 deb (apt)" in lines
    assert "  bash     5.2.15-2+b8  amd64" in lines
