"""The name of the iSCSI initiator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, rewrite

PATH = "/etc/iscsi/initiatorname.iscsi"
# What Debian's open-iscsi replaces by a new name when it starts; others make the file.
GENERATE = b"GenerateName=yes\n"


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    if guest.family == "debian":
        yield from rewrite(guest, PATH, lambda _: GENERATE)
    else:
        yield from remove(guest, PATH)


operation = Operation(
    name="iscsi-initiator",
    heading="Remove the name of the iSCSI initiator",
    description="Two initiators of one name write to the same disks.",
    plan=_plan,
)
