"""What the options of customize ask for: the steps, and the appliance that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imgtools.guest.customize.commands_file import given
from imgtools.guest.customize.plan import Customize, Placed, plan
from imgtools.model.engine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The ``steps`` in their order, and the ``machine`` on which they run."""

    steps: tuple[Placed, ...]
    machine: Machine

    @property
    def step(self) -> Customize:
        """All of them as one."""
        return Customize(steps=self.steps)


def wanted(options: Sequence[tuple[str, str]], *, processors: int = 1) -> Wanted:
    """Parse options, as (name, value) in the order of the command line.  Raises UsageError."""
    found = plan(given(options))
    machine = Machine(network=found.network, processors=processors)
    return Wanted(steps=found.steps, machine=machine)
