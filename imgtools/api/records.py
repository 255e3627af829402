"""What an operation is made of: records without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imgtools.guest.steps import (
    Step,
    Verb,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do: ``step`` does it to ``path``; ``freed`` are the bytes that it gives back.

    What an operation before has removed is not done again, unless ``always`` says that the step
    makes something there, or runs a program.  An ``unmounted`` one is done to a device, before all
    that is done to files.  ``detail`` says what is done for people.
    """

    verb: Verb
    path: bytes
    step: Step
    freed: int = 0
    always: bool = False
    unmounted: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option that an operation adds to the command, as ``--name``.

    ``metavar`` is None for a flag, whose value is a bool; the value of a ``multiple`` option is a
    tuple of strings, of any other a string or None.
    """

    name: str
    help: str
    metavar: str | None = None
    multiple: bool = False


class Values(dict[str, Any]):
    """The values of the options by name; ``given`` are those of the command line in its order,
    as (name, value), the value of a flag being empty."""

    given: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """An account of /etc/passwd and its home directory."""

    name: str
    uid: int
    path: bytes
