"""The host's key for credentials of systemd services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove

ENCRYPTED = ("/etc/credstore.encrypted/*", "/usr/lib/credstore.encrypted/*")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    # What is encrypted by the key would be lost with it.
    if not any(True for _ in guest.glob(*ENCRYPTED)):
        yield from remove(guest, "/var/lib/systemd/credential.secret")


operation = Operation(
    name="credential-secret",
    heading="Remove systemd's key for credentials",
    description="/var/lib/systemd/credential.secret, made anew when it is needed; not while "
    "/etc/credstore.encrypted has something that the key opens.",
    plan=_plan,
)
