"""All options of customize, in the order of the help text."""

from __future__ import annotations

from collections.abc import Iterable

from imgtools.guest.customize.base import Closing, Custom, Row, Setting, Settings
from imgtools.guest.customize.command_options import COMMANDS
from imgtools.guest.customize.file_options import FILES
from imgtools.guest.steps import Step

OPTIONS: tuple[Row, ...] = (*FILES, *COMMANDS)
"""Other groups are joined here."""

CLOSING: tuple[Closing, ...] = ()
"""Run in this order when every option is parsed."""


def steps_of(given: Iterable[tuple[str, str]]) -> tuple[Step, ...]:
    """The steps of options as (name, value), in the order in which they run.

    Raises UsageError.
    """
    rows = {row.name: row for row in OPTIONS}
    settings: dict[str, str] = {}
    parsed: list[tuple[Custom, Step]] = []
    for name, value in given:
        row = rows[name]
        if isinstance(row, Setting):
            row.check(value)
            settings[name] = value
        else:
            parsed.append((row, row.parse(value)))
    return _in_order(parsed, settings)


def _in_order(parsed: list[tuple[Custom, Step]], settings: Settings) -> tuple[Step, ...]:
    first = tuple(row.tuned(step, settings) for row, step in parsed if not row.last)
    last = tuple(row.tuned(step, settings) for row, step in parsed if row.last)
    steps = (*first, *last)
    for closing in CLOSING:
        steps += closing(settings, steps)
    return steps
