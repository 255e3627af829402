"""Who hears a random password."""

from __future__ import annotations

import pytest

from imgtools.cli.customizing import ears
from imgtools.cli.options import Output

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("output", [{}, {"json": True}, {"quiet": True}])
def test_a_random_password_is_said_on_stderr(
    output: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    for dry_run, said in (True, ""), (False, "imgtools: random password of root: abc\n"):
        tells = ears(Output(**output), dry_run=dry_run).tells
        assert tells is not None
        tells("random password of root: abc")
        assert capsys.readouterr() == ("", said)
