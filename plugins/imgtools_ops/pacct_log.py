"""Process accounting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, empty, remove

FOLDERS = ("/var/account", "/var/log/account")  # of Red Hat, of Debian


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for folder in FOLDERS:
        # accton(8) does not make the file.
        yield from empty(guest, f"{folder}/pacct")
        yield from remove(guest, f"{folder}/pacct?*")


operation = Operation(
    name="pacct-log",
    heading="Empty the process accounting",
    description="The record of all commands that ran: the current file is emptied, older ones are "
    "removed.",
    plan=_plan,
)
