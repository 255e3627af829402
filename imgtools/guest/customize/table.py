"""All options of customize, in the order of the help text."""

from __future__ import annotations

from imgtools.guest.customize.base import Closing, Row
from imgtools.guest.customize.command_options import COMMANDS
from imgtools.guest.customize.file_options import FILES
from imgtools.guest.customize.identity_options import IDENTITY

GROUPS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("Files", FILES),
    ("Programs and packages", COMMANDS),
    ("Accounts, names, first boot and labels", IDENTITY),
)
"""Groups with their headings."""

OPTIONS: tuple[Row, ...] = tuple(row for _, rows in GROUPS for row in rows)

CLOSING: tuple[Closing, ...] = ()
"""Run in this order when every option is parsed."""
