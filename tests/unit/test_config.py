"""Defaults < file < environment, and one clear line for a bad value."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgtools.config import Config, load
from imgtools.errors import ConfigError

pytestmark = pytest.mark.unit


def _file(folder: Path, text: str) -> dict[str, str]:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return {"IMGTOOLS_CONFIG": str(path)}


def test_order(tmp_path: Path) -> None:
    environ = _file(tmp_path, 'engine = "direct"\nmemsize = 900\n')
    assert load(environ) == Config(engine="direct", memsize=900)
    environ["IMGTOOLS_ENGINE"] = "appliance"
    assert load(environ) == Config(engine="appliance", memsize=900)


def test_no_file_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load({}) == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load({"IMGTOOLS_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine = 'fast'", "engine: 'fast' is not one of auto, direct, appliance"),
        ("memsize = 'big'", "memsize: 'big' is not a whole number"),
        ("memsize = -1", "memsize: -1 is not a whole number"),
        ("jobs = true", "jobs: True is not a whole number"),
        ("connect = 3", "connect: 3 is not text"),
        ("colour = 'red'", "colour: unknown setting"),
        ("engine =", "Invalid value"),
    ],
)
def test_bad_values_name_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_file(tmp_path, text))
    assert said in caught.value.message
    assert "config.toml" in caught.value.message


def test_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="IMGTOOLS_TIMEOUT: 'soon' is not a whole number"):
        load({"IMGTOOLS_TIMEOUT": "soon", "HOME": "/nonexistent"})
