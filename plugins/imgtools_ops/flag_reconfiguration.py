"""The flag that asks for settings at the next boot."""

from __future__ import annotations

from imgtools.api import Operation, touch

operation = Operation(
    name="flag-reconfiguration",
    heading="Ask for root password, time zone and more at the next boot",
    description="Makes /.unconfigured, on which older Red Hat systems start their setup "
    "dialogue. Off by default: it stops the boot of an unattended clone.",
    plan=lambda guest, _: touch(guest, "/.unconfigured"),
    default=False,
)
