"""Put a Linux guest together: its root, its fstab, and the filesystems that belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imgtools.guest.linux.devices import Devices
from imgtools.guest.linux.findings import Findings, encode
from imgtools.guest.linux.fstab import parse_crypttab, parse_fstab, parse_mdadm
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model.files import FileTree
from imgtools.model.storage import Filesystem, Storage

MAX_CONFIG = 1 << 20
MAX_MOUNTS = 200

MountFunction = Callable[[str], FileTree]


@dataclass(frozen=True, slots=True)
class Layout:
    """What fstab says: (mountpoint or word, mountable) in its order; and its root's mountable.

    ``own_root`` is what the entry for / means, None without one: on a snapshot it is not the
    filesystem that the fstab lies on.
    """

    entries: tuple[tuple[str, str], ...]
    own_root: str | None

    @property
    def mountpoints(self) -> list[tuple[str, str]]:
        """Those with a path, the last entry of a path winning as it would at boot."""
        return list({p: (p, d) for p, d in self.entries if p.startswith("/")}.values())

    @property
    def devices(self) -> list[str]:
        """Every mountable named, swap included, once."""
        return list(dict.fromkeys(device for _, device in self.entries))


def read_layout(tree: GuestTree, root: Filesystem, storage: Storage, findings: Findings) -> Layout:
    """Read the fstab of the root filesystem ``tree`` and look up its devices."""

    def lines(field: str, *paths: bytes) -> list[bytes]:
        return [
            line for path in paths for line in findings.lines(tree, field, path, MAX_CONFIG) or []
        ]

    devices = Devices(
        storage,
        root,
        parse_crypttab(lines("fstab", b"/etc/crypttab")),
        parse_mdadm(lines("fstab", b"/etc/mdadm.conf", b"/etc/mdadm/mdadm.conf"))
        if storage.mds
        else [],
    )
    found = []
    own_root = None
    for entry in parse_fstab(lines("fstab", b"/etc/fstab"), findings):
        device = devices.resolve(entry)
        if device is not None:
            found.append((entry.point, device))
            own_root = device if entry.point == "/" else own_root
    return Layout(tuple(found), own_root)


def assemble(
    root: Filesystem, layout: Layout, storage: Storage, mount: MountFunction, findings: Findings
) -> GuestTree:
    """Mount the guest's filesystems where its fstab says.

    One that is not there or does not mount costs its files and leaves a warning.
    """
    known = {fs.device: fs for fs in storage.filesystems}
    mounts = [Mount(b"/", root.device, mount(root.device), root.type)]
    for point, device in layout.mountpoints[:MAX_MOUNTS]:
        found = known.get(device)
        if point == "/":
            continue
        if found is None:
            findings.warn("mountpoints", f"{point}: {device} is not on these disks")
        elif not found.mountable:
            findings.warn("mountpoints", f"{point}: {device} holds no filesystem ({found.type})")
        else:
            try:
                mounts.append(Mount(encode(point), device, mount(device), found.type))
            except findings.caught as error:
                findings.warn("mountpoints", f"{point}: {device} does not mount: {error}")
    return GuestTree(mounts)
