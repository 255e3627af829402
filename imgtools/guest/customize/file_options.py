"""Options that make, change and remove files."""

from __future__ import annotations

from imgtools.guest.customize.base import Row

FILES: tuple[Row, ...] = ()
