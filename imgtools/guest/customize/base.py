"""A row of the table: one option of customize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imgtools.guest.steps import Step

Settings = Mapping[str, str]
"""The values of the options that are settings, by name; of a flag that was given, ``""``."""


def as_it_is(step: Step, _settings: Settings) -> Step:
    """The step without any setting."""
    return step


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """One option, ``--name``, of which each use is one step, in the order of the command line.

    ``metavar`` is None for a flag, whose value is ``""``.  ``parse`` makes the step of a value;
    it raises UsageError.  ``tuned`` gives the step what settings say, which are known only when
    the whole command line is.  Steps that are ``last`` run after all others.
    """

    name: str
    metavar: str | None
    help: str
    parse: Callable[[str], Step]
    tuned: Callable[[Step, Settings], Step] = as_it_is
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One option, ``--name``, that is no step of its own; the last use counts.

    ``check`` raises UsageError for a bad value.
    """

    name: str
    metavar: str | None
    help: str
    check: Callable[[str], object] = str


Row = Custom | Setting

Closing = Callable[[Settings, tuple[Step, ...]], tuple[Step, ...]]
"""What a group does at the very end, given all settings and the steps before (a relabel …)."""
