"""Where the last lines begin, against the plain way of finding out."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.workflow import tail

pytestmark = pytest.mark.unit


@given(
    text=st.lists(st.sampled_from([b"", b"\n", b"a", b"line\n", b"longer than a block"])),
    lines=st.integers(0, 12),
)
def test_the_last_lines(text: list[bytes], lines: int) -> None:
    data = b"".join(text)
    expected = b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "BLOCK", 4)
        start = tail.start_of_lines(io.BytesIO(data), lines)
    assert data[start:] == expected
