"""``imgtools doctor``: is everything here that imgtools needs?"""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from imgtools.cli.options import Output, output_options
from imgtools.cli.render import print_json, safe_text
from imgtools.config import load

if TYPE_CHECKING:
    from imgtools.workflow.doctor import Check

EPILOG = """\b
Examples:
  imgtools doctor
  imgtools doctor --quick
  imgtools doctor --json | jq -r '.result[] | select(.status != "ok") | .cure'

Exit status: 0 all that is needed is here, 7 something is missing, 5 the appliance does not start.
"""

_NAME_WIDTH = 16
_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@click.command("doctor", epilog=EPILOG, short_help="Check what imgtools needs, with the cures")
@click.option("--quick", is_flag=True, help="Do not start the appliance (it takes seconds).")
@click.option(
    "-c",
    "--connect",
    default="",
    metavar="URI",
    help="libvirt connection to try.  [env: IMGTOOLS_CONNECT]",
)
@output_options()
def command(output: Output, connect: str, *, quick: bool) -> int:
    """Check each thing that imgtools needs; every line that is not ok says how to cure it."""
    from imgtools.workflow.doctor import examine, exit_code

    checks: list[Check] = []
    for check in examine(load(), connect=connect, quick=quick):
        checks.append(check)
        if not output.json:
            _print(check)
    if output.json:
        print_json("doctor", checks)
    return exit_code(checks)


def _print(check: Check) -> None:
    width = max(40, min(shutil.get_terminal_size().columns, 100))
    indent = " " * (_NAME_WIDTH + 6)
    first = f"{_MARKS[check.status]:<5}{check.name:<{_NAME_WIDTH}} "
    _wrap(safe_text(check.fact), first, indent, width)
    if check.cure:
        _wrap(safe_text(check.cure), f"{indent}cure: ", f"{indent}      ", width)
    sys.stdout.flush()


def _wrap(text: str, first: str, rest: str, width: int) -> None:
    for line in textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    ):
        print(line)
