"""What users keep for ssh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, Option, remove_paths

OPTION = "remove-authorized-keys"
KEPT = (b"authorized_keys", b"authorized_keys2")


def _plan(guest: Guest, values: Mapping[str, Any]) -> Iterator[Action]:
    if values.get(OPTION):
        yield from remove_paths(guest, guest.in_homes(".ssh"))
        return
    paths = guest.in_homes(".ssh/*")
    yield from remove_paths(guest, (path for path in paths if path.rpartition(b"/")[2] not in KEPT))


operation = Operation(
    name="ssh-userdir",
    heading="Remove users' SSH keys and known hosts",
    description="Everything in every account's .ssh, but not the keys that are allowed to log in: "
    f"without them, nobody may come in. --{OPTION} removes them as well.",
    options=(Option(name=OPTION, help="ssh-userdir: remove authorized_keys as well."),),
    plan=_plan,
)
