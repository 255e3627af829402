"""The contract of this machine with Ubuntu Pro."""

from __future__ import annotations

from imgtools.api import Operation, remove

operation = Operation(
    name="ubuntu-pro",
    heading="Remove the registration with Ubuntu Pro",
    description="The machine's tokens, and the sources of apt that need them; pro attach "
    "registers a clone.",
    plan=lambda guest, _: remove(
        guest,
        "/var/lib/ubuntu-advantage/private/*",
        "/var/lib/ubuntu-advantage/machine-token.json",
        "/etc/apt/auth.conf.d/90ubuntu-advantage",
        "/etc/apt/sources.list.d/ubuntu-esm-*",
    ),
)
