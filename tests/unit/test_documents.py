"""The documents name what is there: the tests of the traps, the schema of every command."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

TOP = Path(__file__).parents[2]


def _traps() -> dict[int, list[tuple[str, str]]]:
    """The tests (file, name) of each trap in docs/images.md, by its number."""
    text = (TOP / "docs" / "images.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", text.partition("## Traps")[2], re.MULTILINE)
    named = {int(number): re.findall(r"`(tests/\S+\.py)::(\w+)`", row) for number, row in rows}
    assert sum(map(len, named.values())) == text.count(".py::")
    return named


def test_every_trap_has_a_test_that_exists() -> None:
    traps = _traps()
    assert sorted(traps) == list(range(1, 15))
    for number, tests in traps.items():
        assert tests, number
        for file, name in tests:
            tree = ast.parse((TOP / file).read_text(encoding="utf-8"))
            found = [one for one in tree.body if getattr(one, "name", "") == name]
            assert len(found) == 1, f"{file}::{name}"
            assert re.search(r"\bassert |\braises\(", ast.unparse(found[0])), name


def _schemas() -> set[str]:
    """The names that the commands give to `print_json` and `JsonStream`, `*` for what varies."""
    found = set()
    for path in (TOP / "imgtools" / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(getattr(node, "func", None), "id", "")
            if called not in ("print_json", "JsonStream") or not isinstance(node, ast.Call):
                continue
            name = node.args[0]
            if isinstance(name, ast.Constant):
                found.add(str(name.value))
            elif isinstance(name, ast.JoinedStr):
                parts = (str(getattr(part, "value", "*")) for part in name.values)
                found.add("".join(part if "ast" not in part else "*" for part in parts))
    return found


def test_the_schema_of_every_command_is_documented() -> None:
    text = (TOP / "docs" / "json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(?:imgtools/)?([a-z-]+)`", text))
    schemas = _schemas()
    assert {"convert", "image-map", "df", "snapshot-*"} <= schemas
    missing = {
        name
        for name in schemas
        if not any(re.fullmatch(name.replace("*", ".+"), known) for known in documented)
    }
    assert missing == set()
