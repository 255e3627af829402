"""The exception tree: codes are stable, unique and documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools import errors

pytestmark = pytest.mark.unit

DOCUMENT = Path(__file__).parents[2] / "docs" / "exit-codes.md"
SCALE = {1, 2, 3, 4, 5, 6, 7, 8}


def _tree(cls: type[errors.ImgtoolsError]) -> list[type[errors.ImgtoolsError]]:
    return [cls, *(below for sub in cls.__subclasses__() for below in _tree(sub))]


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in _tree(errors.ImgtoolsError)]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("cls", _tree(errors.ImgtoolsError), ids=lambda cls: cls.__name__)
def test_every_error_is_documented(cls: type[errors.ImgtoolsError]) -> None:
    assert cls.exit_code in SCALE
    assert cls.__doc__
    rows = [
        line
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {cls.exit_code} |")
    ]
    family = f"`{cls.code.split('.')[0]}.*`"
    assert any(f"`{cls.code}`" in row or family in row for row in rows), cls.code


def test_an_error_keeps_message_and_hint() -> None:
    error = errors.ImageNotFoundError("x.img: no such file", hint="look elsewhere")
    assert (error.message, error.hint, str(error)) == (
        "x.img: no such file",
        "look elsewhere",
        "x.img: no such file",
    )
