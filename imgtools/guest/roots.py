"""Find the operating systems on the disks, and open the files of one.

Every mountable filesystem is looked at once.  A btrfs snapshot of a root is not a second system.
Linux is ours; what ours does not know (Windows, the BSDs, Hurd, Minix, DOS) is libguestfs's to
tell, so the direct engine refuses a disk that holds one and *auto* takes the appliance.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

from imgtools.errors import DirectUnsupportedError, NoGuestError, SeveralGuestsError
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.inspect import Root
from imgtools.guest.linux.mounts import assemble, read_layout
from imgtools.guest.linux.roots import COREOS, LINUX, kind_of_root
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model.files import FileTree
from imgtools.model.storage import Filesystem

MAX_ROOTS = 100

# Where tools keep copies of a root: snapper, Timeshift, apt-btrfs-snapshot, btrbk.
_SNAPSHOT_PATH = re.compile(
    r"(^|/)(\.snapshots/\d+/snapshot|timeshift-btrfs/snapshots/.*|@?\.?snapshots?/.*|"
    r"btrbk_snapshots/.*|@apt-snapshot-.*|@[\w.-]*[_-]\d{4}.*)$"
)


@dataclass(slots=True)
class Scan:
    """One pass over the filesystems, keeping each mounted tree.

    ``foreign`` are (mountable, system) of roots that are not Linux.
    """

    session: Session
    tolerant: bool = False
    trees: dict[str, FileTree] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    foreign: list[tuple[str, str]] = field(default_factory=list)

    def mount(self, device: str) -> FileTree:
        """The tree of a mountable, mounted once."""
        if device not in self.trees:
            self.trees[device] = self.session.engine.mount(device)
        return self.trees[device]

    def single(self, device: str) -> GuestTree:
        """The tree of one mountable alone."""
        return GuestTree([Mount(b"/", device, self.mount(device))])


def find_roots(session: Session, *, tolerant: bool = False) -> Scan:
    """Look at every filesystem for a root, in libguestfs's order of devices.

    With ``tolerant`` a filesystem that the direct engine refuses costs a warning, not the task.
    Raises DirectUnsupportedError on the direct engine for a system that is not Linux.
    """
    scan = Scan(session, tolerant)
    for filesystem in session.engine.storage().filesystems:
        if filesystem.mountable and len(scan.roots) < MAX_ROOTS:
            _look_at(filesystem, scan)
    scan.roots = _without_snapshots(scan)
    if scan.foreign and session.engine.name == "direct":
        _refuse_foreign(scan)
    return scan


def _look_at(filesystem: Filesystem, scan: Scan) -> None:
    findings = Findings(filesystem.device, tolerant=scan.tolerant)
    tree = findings.attempt("filesystem", lambda: scan.single(filesystem.device), None)
    if tree is not None:
        kind = findings.attempt("filesystem", lambda: kind_of_root(tree), "")
        if kind in (LINUX, COREOS):
            layout = read_layout(tree, filesystem, scan.session.engine.storage(), findings)
            scan.roots.append(Root(filesystem=filesystem, layout=layout, findings=findings))
            return
        if kind:
            scan.foreign.append((filesystem.device, kind))
    for warning in findings.warnings:
        scan.session.warn(warning.code, warning.message)


def _refuse_foreign(scan: Scan) -> None:
    device, kind = scan.foreign[0]
    error = DirectUnsupportedError(
        f"{device}: holds {kind}, which only the appliance can inspect",
        hint="--engine appliance, or leave the choice to auto",
    )
    if not scan.tolerant or not scan.roots:
        raise error
    scan.session.warn("inspect.foreign", error.message)


# --- one guest's files ---------------------------------------------------------------------------


def open_guest_tree(session: Session, *, tolerant: bool = False) -> GuestTree:
    """The files of the one operating system on the disks, mounted by its fstab.

    Raises NoGuestError, and SeveralGuestsError, which lists the roots.
    """
    scan = find_roots(session, tolerant=tolerant)
    devices = [root.filesystem.device for root in scan.roots]
    devices += [device for device, _ in scan.foreign]
    if not devices:
        raise no_guest(session)
    if len(devices) > 1:
        raise SeveralGuestsError(
            f"{session.name}: several operating systems: {', '.join(devices)}",
            hint="name the filesystems with -m DEVICE[:MOUNTPOINT]",
        )
    if not scan.roots:
        return scan.single(devices[0])
    root = scan.roots[0]
    storage = session.engine.storage()
    tree = assemble(root.filesystem, root.layout, storage, scan.mount, root.findings)
    for warning in root.findings.warnings:
        session.warn(warning.code, warning.message)
    return tree


def no_guest(session: Session) -> NoGuestError:
    """The error for disks without an operating system, with the likeliest reason as hint."""
    locked = [luks.device for luks in session.engine.storage().luks if luks.mapped is None]
    if locked:
        return NoGuestError(
            f"{session.name}: no operating system found; {', '.join(locked)} is encrypted",
            hint=f"--key {locked[0]}:file:NAME",
        )
    return NoGuestError(
        f"{session.name}: no operating system found on these disks",
        hint="imgtools filesystems --all --long shows what is there",
    )


# --- copies that are not systems of their own ----------------------------------------------------


def _without_snapshots(scan: Scan) -> list[Root]:
    """The roots, each with its btrfs snapshots."""
    roots = {root.filesystem.device: root for root in scan.roots}
    originals = {name: _original(root, scan, roots) for name, root in roots.items()}
    copies: dict[str, list[str]] = {}
    for name in roots:
        original = _end_of_chain(name, originals)
        if original != name:
            copies.setdefault(original, []).append(name)
    taken = {name for names in copies.values() for name in names}
    return [
        dataclasses.replace(root, snapshots=tuple(copies.get(name, ())))
        for name, root in roots.items()
        if name not in taken
    ]


def _end_of_chain(name: str, originals: dict[str, str | None]) -> str:
    """The root that is its own, following copies of copies; the first one met on a loop."""
    seen = [name]
    while (above := originals.get(seen[-1])) is not None:
        if above in seen:
            return min(seen[seen.index(above) :])
        seen.append(above)
    return seen[-1]


def _original(root: Root, scan: Scan, roots: dict[str, Root]) -> str | None:
    """The root that ``root`` is a snapshot of, None if it is its own.

    A copy carries the fstab of the original: its / is another subvolume of the same btrfs.
    Without an fstab, a snapshot tool's path and the same machine-id and release tell.
    """
    device = root.filesystem.device
    if not device.startswith("btrfsvol:"):
        return None
    own = root.layout.own_root
    if own is not None and own != device and own in roots and _base(own) == _base(device):
        return own
    if own is not None or not _is_snapshot_path(device):
        return None
    mark = _fingerprint(scan, root)
    for name, other in roots.items():
        elsewhere = name == device or _base(name) != _base(device)
        if not elsewhere and not _is_snapshot_path(name) and mark == _fingerprint(scan, other):
            return name
    return None


def _is_snapshot_path(device: str) -> bool:
    path = device.removeprefix(f"btrfsvol:{_base(device)}/")
    return path != device and _SNAPSHOT_PATH.search(path) is not None


def _base(device: str) -> str:
    """The device beneath a btrfs subvolume."""
    if not device.startswith("btrfsvol:/dev/"):
        return device
    parts = device.removeprefix("btrfsvol:/dev/").split("/")
    # /dev/mapper/NAME and /dev/VG/LV have two parts, disks and arrays one.
    single = re.match(r"(sd|md|vd|nbd|loop)[a-z0-9]*\Z", parts[0]) is not None
    return "/dev/" + "/".join(parts[: 1 if single else 2])


def _fingerprint(scan: Scan, root: Root) -> tuple[bytes | None, ...]:
    tree = scan.single(root.filesystem.device)
    paths = (b"/etc/machine-id", b"/etc/os-release", b"/etc/hostname")
    return tuple(root.findings.read(tree, "snapshots", path) for path in paths)
