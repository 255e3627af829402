"""The device that snapd is to the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

STATE = "/var/lib/snapd/state.json"
OWN = ("key-id", "serial", "session-macaroon")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    yield from rewrite(guest, STATE, _without_device)
    yield from remove(
        guest,
        "/var/lib/snapd/device/private-keys-v1/*",
        "/var/lib/snapd/assertions/asserts-v0/serial/*",
    )


def _without_device(text: bytes) -> bytes:
    """snapd's state without the identity of the device; brand and model stay."""
    try:
        state = json.loads(text)
        device = state["data"]["auth"]["device"]
        own = [name for name in OWN if name in device]
    except (ValueError, KeyError, TypeError):
        return text
    for name in own:
        del device[name]
    return json.dumps(state, separators=(",", ":")).encode() if own else text


operation = Operation(
    name="snapd-identity",
    heading="Remove the identity of snapd",
    description="The device's key and serial, by which the store knows this machine; snaps stay. "
    "Off by default: snapd's own state file is edited.",
    default=False,
    plan=_plan,
)
