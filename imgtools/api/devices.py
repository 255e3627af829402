"""Actions on devices, done while nothing on them is mounted, and on swap files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imgtools.api.guest import Guest
from imgtools.api.records import Action
from imgtools.guest.steps import (
    ClearSwap,
    ClearSwapFile,
    RenewLvm,
    SetUuid,
)
from imgtools.swap import is_clear


def set_uuid(device: str, kind: str, old: str, new: str) -> Iterator[Action]:
    """Give the filesystem, swap or LUKS header on a device of ``guest.storage`` another UUID.

    ``kind`` is ext2, ext3, ext4, xfs, btrfs, swap, vfat or crypto_LUKS.
    """
    yield Action(
        verb="changed",
        path=device.encode("utf-8", errors="surrogateescape"),
        step=SetUuid(device=device, kind=kind, old=old, new=new),
        unmounted=True,
        detail=f"{kind}: a random UUID instead of {old}",
    )


def clear_swap(guest: Guest, device: str) -> Iterator[Action]:
    """Write zeros over the content of a swap space of ``guest.storage``, if it has any."""
    if not guest.tree.swap_is_clear(device):
        detail = "swap: all but its header"
        yield Action(
            verb="changed",
            path=device.encode("utf-8", errors="surrogateescape"),
            step=ClearSwap(device=device, detail=detail),
            unmounted=True,
            detail=detail,
        )


def clear_swap_file(guest: Guest, path: bytes) -> Iterator[Action]:
    """Write zeros over the content of a swap file, if it has any."""
    with guest.tree.open(path) as stream:
        clear = is_clear(stream)
    if not clear:
        yield Action(verb="changed", path=path, step=ClearSwapFile(path=path))


def renew_lvm(detail: str, tell: Callable[[Mapping[str, str]], None]) -> Iterator[Action]:
    """Give every PV and VG a random id; ``tell`` gets old to new, without dashes, once done.

    That is before anything is done to files.
    """
    yield Action(
        verb="changed", path=b"LVM", step=RenewLvm(tell=tell), unmounted=True, detail=detail
    )
