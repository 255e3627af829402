"""From options in the order of the command line to one step that does all of them.

`Customize` is asked before a launch what cannot work, so that a guest of another architecture, or
without a package manager that is known, is refused before anything is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from imgtools.errors import GuestOperationError, ImgtoolsError, UsageError
from imgtools.guest.customize.base import Custom, Row, Setting, path_of
from imgtools.guest.customize.table import CLOSING, OPTIONS
from imgtools.guest.steps import Done, Step, Verb
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An option as it was given: its name without dashes, its value (``""`` of a flag), and where
    it stands, for errors."""

    name: str
    value: str = field(repr=False)
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of all options in the order in which they run, and whether any needs a network."""

    steps: tuple[Placed, ...]
    network: bool


@runtime_checkable
class Checked(Protocol):
    """A step that knows on the guest as it is that it cannot work."""

    def check(self, tree: GuestTree) -> None:
        """Raise GuestOperationError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A step whose errors say where it was asked for; ``verb`` and ``shown`` list it beforehand."""

    where: str
    verb: Verb
    shown: bytes
    step: Step

    def check(self, tree: GuestTree) -> None:
        """As the step, if it knows."""
        if isinstance(self.step, Checked):
            self.step.check(tree)

    def idle(self, tree: GuestTree) -> bool:
        """As the step."""
        try:
            return self.step.idle(tree)
        except ImgtoolsError as error:
            raise self._placed(error) from error

    def perform(self, guest: GuestFiles) -> list[Done]:
        """As the step."""
        try:
            return self.step.perform(guest)
        except ImgtoolsError as error:
            raise self._placed(error) from error

    def _placed(self, error: ImgtoolsError) -> ImgtoolsError:
        if error.message.startswith(f"{self.where}:"):
            return error
        return type(error)(f"{self.where}: {error.message}", hint=error.hint)


def plan(given: Iterable[Given], options: Sequence[Row] = OPTIONS) -> Plan:
    """Parse all options.  Raises UsageError that says which."""
    rows = {row.name: row for row in options}
    settings: dict[str, str] = {}
    parsed: list[tuple[Custom, Given, Step]] = []
    for one in given:
        row = rows[one.name]
        try:
            if isinstance(row, Setting):
                row.check(one.value)
                settings[one.name] = one.value
            else:
                parsed.append((row, one, row.parse(one.value)))
        except UsageError as error:
            raise _at(one.where, error) from None
    if "network" in settings and "no-network" in settings:
        raise UsageError("--network and --no-network cannot be used together")
    steps = []
    for row, one, step in sorted(parsed, key=lambda found: found[0].last):
        try:
            tuned = row.tuned(step, settings)
        except UsageError as error:
            raise _at(one.where, error) from None
        shown = row.shown(tuned) or os.fsencode(f"--{one.name}")
        steps.append(Placed(where=one.where, verb=row.verb, shown=shown, step=tuned))
    for closing in CLOSING:
        before = tuple(one.step for one in steps)
        steps += [_closing(step) for step in closing(settings, before)]
    wanted = any(row.network(settings) for row, _, _ in parsed) or "network" in settings
    return Plan(steps=tuple(steps), network=wanted and "no-network" not in settings)


def _closing(step: Step) -> Placed:
    return Placed(where="customize", verb="changed", shown=path_of(step) or b"/", step=step)


def _at(where: str, error: UsageError) -> UsageError:
    if error.message.startswith(f"{where}:"):
        return error
    return type(error)(f"{where}: {error.message}", hint=error.hint)


@dataclass(kw_only=True)
class Customize:
    """All steps as one: refused at once, or done in order."""

    steps: Sequence[Placed]

    def idle(self, tree: GuestTree) -> bool:
        """True if no step has anything to do.  Raises what says that one cannot work."""
        for one in self.steps:
            one.check(tree)
        for number, one in enumerate(self.steps):
            try:
                if not one.idle(tree):
                    return False
            except GuestOperationError:
                # What an earlier step makes is not there yet: only doing them all tells.
                if number == 0:
                    raise
                return False
        return True

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do them."""
        for one in self.steps:
            one.check(guest)
        return [done for one in self.steps for done in one.perform(guest)]
