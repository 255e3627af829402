"""One operation of sysprep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imgtools.api.guest import Guest
from imgtools.api.records import Action, Option

Plan = Callable[[Guest, Mapping[str, Any]], Iterable[Action]]
"""What an operation would do to a guest, given the values of its options by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of sysprep.

    ``name`` is in kebab-case; ``heading`` is one line for lists; ``description`` says what is
    removed and why.  Operations run in the order of (``order``, ``name``); ``default`` ones run
    unless the user chooses others.  ``families`` limits it to distributions, none means all.
    """

    name: str
    heading: str
    plan: Plan
    description: str = ""
    order: int = 0
    default: bool = True
    families: tuple[str, ...] = ()
    options: tuple[Option, ...] = field(default=())

    def applies(self, guest: Guest) -> bool:
        """True if the guest is of a family that the operation is for."""
        return not self.families or guest.family in self.families
