"""Guest text never reaches a terminal raw; JSON keeps the bytes."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.cli.options import Output
from imgtools.cli.render import csv_field, finish, jsonable, print_columns, print_json, safe_text
from imgtools.model.notices import Notice

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        ("caf\u00e9", "caf\u00e9"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u009b31m", "\\x9b31m"),
    ],
)
def test_safe_text(raw: bytes | str, shown: str) -> None:
    assert safe_text(raw) == shown


@given(st.binary())
def test_safe_text_is_printable_and_utf8(raw: bytes) -> None:
    shown = safe_text(raw)
    shown.encode("utf-8")
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)


@given(st.binary())
def test_json_keeps_the_bytes(raw: bytes) -> None:
    item = json.loads(json.dumps(jsonable({"name": raw})))
    back = base64.b64decode(item["name_base64"]) if "name_base64" in item else item["name"].encode()
    assert back == raw


def test_jsonable_records() -> None:
    @dataclasses.dataclass(frozen=True)
    class Record:
        path: Path
        names: tuple[bytes, ...]
        text: str

    record = Record(Path("/x"), (b"a", b"\xff"), "a\udcff")
    assert jsonable([record]) == [
        {"path": "/x", "names": ["a", "\\xff"], "text": "a\\xff", "text_base64": "Yf8="}
    ]


def test_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("df", [1], engine="direct", warnings=[Notice(code="a.b", message="m")])
    assert json.loads(capsys.readouterr().out) == {
        "schema": "imgtools/df",
        "version": 1,
        "engine": "direct",
        "result": [1],
        "warnings": [{"code": "a.b", "message": "m"}],
    }


@pytest.mark.parametrize(
    ("value", "field"),
    [("a", b"a"), ("a b", b'"a b"'), ('q"q', b'"q""q"'), ("a,b", b'"a,b"'), (5, b"5")],
)
def test_csv_quoting(value: str | int, field: bytes) -> None:
    assert csv_field(value) == field


def test_columns_align(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns([["Name", "Size"], ["a", 5], [b"bb\n", 1000]], right=[1])
    assert capsys.readouterr().out == "Name   Size\na         5\nbb\\x0a 1000\n"


def test_warnings_and_strict(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = [Notice(code="x", message="odd\x1b")]
    assert finish(Output(strict=True), warnings) == 20
    assert finish(Output(quiet=True), warnings) == 0
    assert finish(Output(strict=True), []) == 0
    assert capsys.readouterr().err == "imgtools: warning: odd\\x1b\n"
