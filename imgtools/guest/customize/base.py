"""A row of the table: one option of customize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from imgtools.guest.steps import Step, Verb

Settings = Mapping[str, str]
"""The values of the options that are settings, by name; of a flag that was given, ``""``."""


def as_it_is(step: Step, _settings: Settings) -> Step:
    """The step without any setting."""
    return step


def never(_settings: Settings) -> bool:
    """No network is needed."""
    return False


def path_of(step: Step) -> bytes:
    """The guest path that a step is about; empty if it has none."""
    for name in ("path", "pattern", "to"):
        found = getattr(step, name, None)
        if isinstance(found, bytes):
            return found
    return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """One option, ``--name``, of which each use is one step, in the order of the command line.

    ``metavar`` is None for a flag, whose value is ``""``.  ``parse`` makes the step of a value;
    it raises UsageError.  ``tuned`` gives the step what settings say, which are known only when
    the whole command line is.  Steps that are ``last`` run after all others.  ``network`` says
    whether the step cannot do without one.  ``verb`` and ``shown`` are what a plan lists, which
    must hold no secret.
    """

    name: str
    metavar: str | None
    help: str
    parse: Callable[[str], Step]
    tuned: Callable[[Step, Settings], Step] = as_it_is
    last: bool = False
    network: Callable[[Settings], bool] = never
    verb: Verb = "changed"
    shown: Callable[[Step], bytes] = path_of


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
