"""The direct engine's libraries, imported for real."""

from __future__ import annotations

import sys

import pytest

from imgtools.direct import health
from imgtools.errors import MissingBindingError

pytestmark = pytest.mark.direct


def test_all_are_here() -> None:
    assert health.libraries() == f"all {len(health.LIBRARIES)} libraries of it"


def test_a_missing_one_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    with pytest.raises(MissingBindingError, match=r"not importable: lz4$") as caught:
        health.libraries()
    assert "imgtools[direct]" in (caught.value.hint or "")
