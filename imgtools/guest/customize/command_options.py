"""Options that run programs of the guest, and those for packages."""

from __future__ import annotations

from imgtools.guest.customize.base import Row

COMMANDS: tuple[Row, ...] = ()
