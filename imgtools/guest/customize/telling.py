"""What a step has to tell the user once, and nobody else: a random password that it made.

It is true only when the change is committed, and belongs in no record; so steps keep it, and the
command asks for it at its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from imgtools.guest.steps import Step


@runtime_checkable
class Telling(Protocol):
    """A step that may have something to tell."""

    def told(self) -> tuple[str, ...]:
        """Lines for the user, after `Step.perform`."""


def told(steps: Iterable[Step]) -> tuple[str, ...]:
    """What these steps have to tell, in their order."""
    return tuple(line for step in steps if isinstance(step, Telling) for line in step.told())
