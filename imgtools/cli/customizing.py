"""What `customize` and `sysprep` share: options in the order of the command line, and how programs
of the guest are heard."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from imgtools.cli.options import OrderedOption, Output
from imgtools.cli.render import safe_text, tell
from imgtools.errors import CommitError, ImgtoolsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imgtools.api import Option

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


class Hearing:
    """Says on stderr which program of the guest runs, and what it printed if it failed, or with -v.

    ``ears`` are for the change; what steps have to tell, a random password, is told by `telling`.
    """

    def __init__(self, output: Output) -> None:
        from imgtools.guest.writing import Ears

        self._output = output
        self._lines: list[str] = []
        self.ears = Ears(begins=self._begins, said=self._said, tells=self._lines.append)

    @contextmanager
    def telling(self, *, dry_run: bool) -> Iterator[None]:
        """Tell it after the block, quiet or not, unless nothing was committed.

        After a commit, whatever happens (a signal that waited for it, a reader of stdout that is
        gone), nobody else would; nor would anybody once `recover` has finished a commit.
        """
        try:
            yield
        except BaseException as error:
            if dry_run or (isinstance(error, ImgtoolsError) and not isinstance(error, CommitError)):
                self._lines.clear()
            raise
        finally:
            for line in self._lines if not dry_run else ():
                tell(line)

    def _begins(self, what: str) -> None:
        # With --json stderr is one document.
        if not self._output.quiet and not self._output.json:
            tell(f"running: {what}")

    def _said(self, text: bytes, failed: bool) -> None:
        lines = text.decode("utf-8", errors="surrogateescape").splitlines()
        if self._output.json or not (failed or self._output.verbose):
            return
        shown = lines if self._output.verbose else lines[-_SHOWN:]
        if len(shown) < len(lines):
            tell(f"({len(lines) - len(shown)} lines before are left out: -v shows them)")
        for line in shown:
            click.echo(f"  {safe_text(line)}", err=True)
