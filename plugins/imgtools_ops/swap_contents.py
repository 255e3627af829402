"""What was swapped out: pieces of this machine's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, clear_swap, clear_swap_file


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for one in guest.storage.filesystems:
        if one.type == "swap":
            yield from clear_swap(guest, one.device)
    for path in _files(guest):
        yield from clear_swap_file(guest, path)


def _files(guest: Guest) -> Iterator[bytes]:
    """The swap files of fstab(5); what it has below /dev is a device."""
    for line in (guest.read("/etc/fstab") or b"").splitlines():
        words = line.split(b"#")[0].split()
        if len(words) >= 3 and words[2] == b"swap" and words[0].startswith(b"/"):
            path = words[0].replace(b"\\040", b" ")
            if not path.startswith(b"/dev/") and guest.tree.is_file(path):
                yield path


operation = Operation(
    name="swap-contents",
    heading="Clear what is in swap spaces",
    description="Partitions, volumes and files of swap space may hold passwords and keys from the "
    "memory of this machine; zeros are written over that. UUID, label and size stay. A guest that "
    "sleeps on its disk is refused as always.",
    plan=_plan,
)
