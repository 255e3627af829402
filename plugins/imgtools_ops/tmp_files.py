"""Temporary files."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="tmp-files",
    heading="Remove temporary files",
    description="Everything in /tmp and /var/tmp.",
    plan=lambda guest, _: remove(guest, "/tmp/*", "/var/tmp/*"),
)
