"""Every command: documented, cheap to ask for help, and strict about its command line."""

from __future__ import annotations

import click
import pytest

from imgtools.cli.main import COMMANDS, cli, run

pytestmark = pytest.mark.unit


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_has_a_summary_options_with_help_and_examples(name: str) -> None:
    command = _command(name)
    assert command.name == name
    summary = command.get_short_help_str(limit=200)
    assert summary
    assert not summary.endswith(".")
    assert "Examples:" in (command.epilog or "")
    assert f"imgtools {name}" in (command.epilog or "")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_exits_0_and_names_the_environment(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "\\b" not in shown  # click's mark for what is not to be wrapped
    if "--engine" in shown:
        assert "IMGTOOLS_ENGINE" in shown
    if "--connect" in shown:
        assert "IMGTOOLS_CONNECT" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["ls"], "which disk? -a FILE or -d DOMAIN"),
        (["cat"], "which disk? -a FILE or -d DOMAIN"),
        (["filesystems"], "which disk? -a FILE or -d DOMAIN"),
        (["ls", "-a", "x"], "which directory?"),
        (["cat", "-a", "x"], "which file?"),
        (["df", "-a", "x", "y"], "y: one argument too many"),
        (["filesystems", "-a", "x", "y"], "y: one argument too many"),
        (["df", "-h", "--csv", "-a", "x"], "-h and --csv cannot be combined"),
        (["filesystems", "-h", "--csv", "-a", "x"], "-h and --csv cannot be combined"),
        (["ls", "-lRh", "--csv", "-a", "x", "/"], "-h and --csv cannot be combined"),
        (["ls", "--csv", "-a", "x", "/"], "need -lR"),
        (["ls", "-l", "--uids", "-a", "x", "/"], "need -lR"),
        (["ls", "-lR", "--checksum=gost", "-a", "x", "/"], "--checksum=gost: unknown"),
        (["ls", "-d", "one", "-d", "two", "/"], "reads one guest"),
        (["ls", "-a", "x", "-m", "/dev/sda1:/boot", "/"], "nothing is mounted on /"),
        (["ls", "-a", "x", "-m", "/dev/sda1:/:rw", "/"], "mount option rw is not supported"),
        (["df", "-P", "0"], "0 is not in the range"),
        (["df", "--json", "--csv", "-a", "x"], "--json cannot be combined"),
        (["df", "--nonsense"], "No such option"),
    ],
)
def test_a_bad_command_line_is_exit_2_and_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert complaint in shown.err
    assert shown.err.count("\n") == 1


def test_a_mistyped_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["filesystem"]) == 2
    assert "did you mean filesystems?" in capsys.readouterr().err


def test_the_virt_tools_names_lead_to_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspector"]) == 2
    assert "did you mean inspect?" in capsys.readouterr().err


def test_an_error_under_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["df", "--json", "-a", "/no/such/image"]) == 4
    shown = capsys.readouterr()
    assert shown.out == ""
    assert '"code": "image.not-found"' in shown.err
