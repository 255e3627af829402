"""What doctor says of the direct engine is about the libraries that pyproject installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from imgtools.direct import health

pytestmark = pytest.mark.unit

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_libraries_are_those_of_the_extra() -> None:
    extra = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["direct"]
    assert {re.split(r"[<>=;]", line)[0].strip() for line in extra} == set(health.LIBRARIES)
