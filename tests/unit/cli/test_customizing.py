"""The order of options on the command line; who hears a random password, and when."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
import pytest

from imgtools.api import customize_options
from imgtools.cli import customize_cmd, sysprep_cmd
from imgtools.cli.customizing import Hearing, given
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


@pytest.mark.parametrize("command", [customize_cmd.command, sysprep_cmd.command])
def test_options_are_told_in_the_order_of_the_command_line(command: click.Command) -> None:
    words = ["--write", "/a:1", "--update", "-a", "x", "--mkdir=/b", "--write", "/c:2", "--update"]
    with command.make_context(command.name, words):
        assert given(customize_options()) == (
            ("write", "/a:1"), ("update", ""), ("mkdir", "/b"), ("write", "/c:2"), ("update", ""),
        )  # fmt: skip
        assert given(customize_options()[:2]) == ()


def test_every_option_of_customize_is_one_of_sysprep_and_is_documented() -> None:
    with customize_cmd.command.make_context("customize", []) as context:
        text = customize_cmd.command.get_help(context)
    with sysprep_cmd.command.make_context("sysprep", []) as context:
        sysprep = sysprep_cmd.command.get_help(context)
    document = (Path(__file__).parents[3] / "docs/customize.md").read_text()
    for option in customize_options():
        for shown in text, sysprep, document:
            assert f"--{option.name}" in shown, option.name
