"""What `customize` and `sysprep` share: options in the order of the command line, and how programs
of the guest are heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import OrderedOption, Output
from imgtools.cli.render import safe_text, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imgtools.api import Option
    from imgtools.guest.writing import Ears

_META = "imgtools.operations"
_SHOWN = 100
"""Lines of the output of a program that failed."""


class OperationOption(OrderedOption):
    """An option that an operation brought, or one of customize."""

    meta_key = _META


def click_options(options: Iterable[Option]) -> list[click.Parameter]:
    """The same as options of click, whose values have ``op_`` before their names."""
    return [OperationOption([f"--{one.name}", variable(one.name)], **_kind(one)) for one in options]


def variable(name: str) -> str:
    """What click calls the value of an option."""
    return f"op_{name.replace('-', '_')}"


def _kind(option: Option) -> dict[str, Any]:
    if option.metavar is None:
        return {"is_flag": True, "help": option.help}
    return {"metavar": option.metavar, "multiple": option.multiple, "help": option.help}


def given(options: Iterable[Option]) -> tuple[tuple[str, str], ...]:
    """What the command line said, as (name, value) in its order; flags have no value."""
    known = {variable(one.name): one for one in options}
    ordered = click.get_current_context().meta.get(_META, [])
    return tuple(
        (known[name].name, "" if known[name].metavar is None else value)
        for name, value in ordered
        if name in known
    )


def ears(output: Output, *, dry_run: bool = False) -> Ears:
    """Say on stderr which program runs, and what it printed if it failed, or with -v.

    A random password is said in any case, but for a dry run, whose passwords are nobody's.
    """
    from imgtools.guest.writing import Ears

    def tells(line: str) -> None:
        if not dry_run:
            tell(line)

    if output.json:
        return Ears(tells=tells)  # stderr is one document then

    def begins(what: str) -> None:
        if not output.quiet:
            tell(f"running: {what}")

    def said(text: bytes, failed: bool) -> None:
        lines = text.decode("utf-8", errors="surrogateescape").splitlines()
        if not (failed or output.verbose) or not lines:
            return
        shown = lines if output.verbose else lines[-_SHOWN:]
        if len(shown) < len(lines):
            tell(f"({len(lines) - len(shown)} lines before are left out: -v shows them)")
        for line in shown:
            click.echo(f"  {safe_text(line)}", err=True)

    return Ears(begins=begins, said=said, tells=tells)
