"""Who hears a random password, and when."""

from __future__ import annotations

from contextlib import suppress

import pytest

from imgtools.cli.customizing import Hearing
from imgtools.cli.options import Output
from imgtools.errors import CommitError, GuestOperationError

pytestmark = pytest.mark.unit

LINE = "random password of root: abc"


@pytest.mark.parametrize("output", [{}, {"json": True}, {"quiet": True}])
@pytest.mark.parametrize(
    ("error", "dry_run", "said"),
    [
        (None, False, True),
        (None, True, False),
        (GuestOperationError("a step failed"), False, False),
        (CommitError("recover finishes it"), False, True),
        (KeyboardInterrupt(), False, True),
        (BrokenPipeError(), False, True),
        (KeyboardInterrupt(), True, False),
    ],
)
def test_a_random_password_is_said_once_it_may_be_in_the_image(
    output: dict[str, bool],
    error: BaseException | None,
    dry_run: bool,
    said: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hearing = Hearing(Output(**output))
    expected = (GuestOperationError, CommitError, KeyboardInterrupt, BrokenPipeError)
    with suppress(*expected), hearing.telling(dry_run=dry_run):
        assert hearing.ears.tells is not None
        hearing.ears.tells(LINE)
        assert capsys.readouterr() == ("", "")
        if error is not None:
            raise error
    assert capsys.readouterr() == ("", f"imgtools: {LINE}\n" if said else "")
