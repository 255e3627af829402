"""The device that snapd is to the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

STATE = "/var/lib/snapd/state.json"
OWN = ("key-id", "serial", "session-macaroon")
# Those whose serials come from the store, so that snapd asks for another by itself; its own
# DeviceManager.Unregister forgets no others.
BRANDS = ("generic", "canonical")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    if not _device(guest.read(STATE) or b"")[1]:
        return
    yield from rewrite(guest, STATE, _without_device)
    yield from remove(
        guest,
        "/var/lib/snapd/device/private-keys-v1/*",
        "/var/lib/snapd/assertions/asserts-v0/serial/*",
    )


def _device(text: bytes) -> tuple[Any, dict[str, Any]]:
    """snapd's state, and the part of it that is the device; empty where the brand is another's."""
    try:
        state = json.loads(text)
        device = state["data"]["auth"]["device"]
        known = device["brand"] in BRANDS
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, {}
    return state, device if known else {}


def _without_device(text: bytes) -> bytes:
    """snapd's state without the identity of the device; brand and model stay."""
    state, device = _device(text)
    own = [name for name in OWN if name in device]
    for name in own:
        del device[name]
    return json.dumps(state, separators=(",", ":")).encode() if own else text


operation = Operation(
    name="snapd-identity",
    heading="Remove the identity of snapd",
    description="The device's key and serial, by which the store knows this machine; snapd asks "
    "for new ones, as after its own Unregister. Snaps stay, and so does a device whose serial is "
    "from another brand than generic and canonical.",
    plan=_plan,
)
