"""The ids of LVM's physical volumes and volume groups."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, GuestOperationError, Operation, renew_lvm
from imgtools_ops._ids import Ids, dashed
from imgtools_ops._references import references

_LETTERS = string.ascii_letters + string.digits


def plan(guest: Guest, options: Mapping[str, Any]) -> Iterator[Action]:
    """All at once; which ids LVM chose is known when the files are rewritten."""
    del options
    storage = guest.storage
    if not storage.pvs:
        return
    ids = Ids(lvm=True)
    # Until LVM has chosen: something that no file can have, so that a dry run sees what changes.
    olds = [*(pv.uuid for pv in storage.pvs), *(vg.uuid for vg in storage.vgs)]
    ids.update({old: "".join(secrets.choice(_LETTERS) for _ in old) for old in olds})
    names = [
        *(f"{vg.name} {dashed(vg.uuid)}" for vg in storage.vgs),
        *(f"{pv.name} {dashed(pv.uuid)}" for pv in storage.pvs),
    ]

    def tell(changed: Mapping[str, str]) -> None:
        for old in olds:
            if changed.get(old, old) == old:
                raise GuestOperationError(f"LVM has not changed the id {dashed(old)}")
        ids.update(changed)

    yield from renew_lvm(f"random ids instead of those of {', '.join(names)}", tell)
    yield from references(guest, ids)


operation = Operation(
    name="lvm-uuids",
    heading="Give LVM's physical volumes and volume groups new ids",
    description="Random ids, and whatever names the old ones (GRUB, LVM's list of devices and its "
    "backup, the initramfs) names the new.  Names of volume groups and volumes stay, so that the "
    "guest still boots; two clones can be attached to one machine after a vgrename.",
    plan=plan,
    order=99,
    default=False,
)
