"""Steps that change a device whose filesystem is not mounted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from imgtools.guest.steps.base import Always, Done
from imgtools.guest.writing import GuestFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUuid(Always):
    """Give the filesystem, swap space or LUKS header (``kind``) on ``device`` the UUID ``new``."""

    device: str
    kind: str
    old: str
    new: str

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Unmount everything, and set it."""
        guest.unmounted().set_uuid(self.device, self.kind, self.new)
        path = self.device.encode("utf-8", errors="surrogateescape")
        return [Done(verb="changed", path=path, detail=f"UUID {self.old} -> {self.new}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewLvm(Always):
    """Give all PVs and VGs random ids, of which ``tell`` learns: old to new, without dashes."""

    tell: Callable[[Mapping[str, str]], None] = field(repr=False)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Unmount everything, change the ids, and tell."""
        changed = guest.unmounted().renew_lvm()
        self.tell(changed)
        detail = ", ".join(f"{old} -> {new}" for old, new in changed.items())
        return [Done(verb="changed", path=b"LVM", detail=f"ids {detail}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearSwap(Always):
    """Write zeros over the content of the swap space on ``device``."""

    device: str
    detail: str

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Unmount everything, and do it."""
        guest.unmounted().clear_swap(self.device)
        path = self.device.encode("utf-8", errors="surrogateescape")
        return [Done(verb="changed", path=path, detail=self.detail)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearSwapFile(Always):
    """Write zeros over the content of a swap file."""

    path: bytes

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Do it."""
        guest.clear_swap(self.path)
        return [Done(verb="changed", path=self.path)]
