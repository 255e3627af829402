"""Find every operating system on the disks and inspect each.

Ours is written once over `model.Engine`, so that both engines give the same document.  Linux is
ours; what ours does not know (Windows, the BSDs, Hurd, Minix, DOS) is libguestfs's to tell, so the
direct engine refuses a disk that holds one and *auto* takes the appliance.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from imgtools.errors import DirectUnsupportedError, NoGuestError, SeveralGuestsError
from imgtools.guest.inspection import Inspection
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.inspect import Root, inspect_linux
from imgtools.guest.linux.mounts import assemble, read_layout
from imgtools.guest.linux.roots import COREOS, LINUX, kind_of_root
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model import Filesystem, FileTree

MAX_ROOTS = 100

# Where tools keep copies of a root: snapper, Timeshift, apt-btrfs-snapshot, btrbk, Yast.
_SNAPSHOT_PATH = re.compile(
    r"(^|/)(\.snapshots/\d+/snapshot|timeshift-btrfs/snapshots/.*|@snapshots?/.*|"
    r"\.?snapshots/.*|btrbk_snapshots/.*|@apt-snapshot-.*|@[\w.-]*[_-]\d{4}.*)$"
)


@dataclass(slots=True)
class _Scan:
    """One pass over the filesystems, keeping each mounted tree."""

    session: Session
    tolerant: bool
    trees: dict[str, FileTree] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    foreign: list[tuple[str, str]] = field(default_factory=list)

    def mount(self, device: str) -> FileTree:
        if device not in self.trees:
            self.trees[device] = self.session.engine.mount(device)
        return self.trees[device]

    def single(self, device: str) -> GuestTree:
        return GuestTree([Mount(b"/", device, self.mount(device))])


def inspect_guests(
    session: Session,
    *,
    applications: bool = True,
    icon: bool = True,
    tolerant: bool = False,
) -> list[Inspection]:
    """Inspect every operating system on the session's disks, in libguestfs's order of devices.

    With ``tolerant`` what the direct engine refuses costs the field instead of the whole task.
    The warnings of all guests are also the session's.
    """
    scan = _scan(session, tolerant=tolerant)
    storage = session.engine.storage()
    others = _inspect_foreign(scan)
    results = [
        inspect_linux(root, storage, scan.mount, applications=applications, with_icon=icon)
        for root in _without_snapshots(scan)
    ]
    for result in results:
        for warning in result.warnings:
            session.warn(warning.code, warning.message)
    order = {fs.device: index for index, fs in enumerate(storage.filesystems)}
    return sorted([*results, *others], key=lambda found: order.get(found.root, len(order)))


def open_guest_tree(session: Session) -> GuestTree:
    """The files of the one operating system on the disks, mounted where its fstab says.

    Lighter than an inspection: of the guest only what it mounts is read.  Raises NoGuestError,
    and SeveralGuestsError which lists the roots.
    """
    scan = _scan(session, tolerant=False)
    others = _inspect_foreign(scan)
    roots = _without_snapshots(scan)
    names = [*(root.filesystem.device for root in roots), *(other.root for other in others)]
    if not names:
        known = [fs.device for fs in session.engine.storage().filesystems if fs.mountable]
        hint = f"-m DEVICE mounts one: {', '.join(known)}" if known else "is a disk missing?"
        raise NoGuestError(f"{session.name}: no operating system found on the disks", hint=hint)
    if len(names) > 1:
        raise SeveralGuestsError(
            f"{session.name}: several operating systems: {', '.join(names)}",
            hint="-m DEVICE mounts one of them",
        )
    if others:
        points = others[0].mountpoints
        return GuestTree([Mount(p.path.encode(), p.device, scan.mount(p.device)) for p in points])
    root = roots[0]
    storage = session.engine.storage()
    tree = assemble(root.filesystem, root.layout, storage, scan.mount, root.findings)
    for warning in root.findings.warnings:
        session.warn(warning.code, warning.message)
    return tree


def _scan(session: Session, *, tolerant: bool) -> _Scan:
    scan = _Scan(session, tolerant)
    for filesystem in session.engine.storage().filesystems:
        if filesystem.mountable and len(scan.roots) < MAX_ROOTS:
            _look_at(filesystem, scan)
    return scan


def _look_at(filesystem: Filesystem, scan: _Scan) -> None:
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


# --- copies that are not systems of their own -----------------------------------------------


def _without_snapshots(scan: _Scan) -> list[Root]:
    """The roots, each with its btrfs snapshots, which are no systems of their own."""
    originals = {root.filesystem.device: root for root in scan.roots}
    copies: dict[str, list[str]] = {}
    for root in scan.roots:
        original = _original(root, scan, originals)
        if original is not None:
            copies.setdefault(original, []).append(root.filesystem.device)
    for devices in copies.values():
        for device in devices:
            originals.pop(device, None)
    return [
        dataclasses.replace(root, snapshots=tuple(copies.get(device, ())))
        for device, root in originals.items()
    ]


def _original(root: Root, scan: _Scan, roots: dict[str, Root]) -> str | None:
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
    path = device.removeprefix(_prefix(device))
    if own is not None or not _SNAPSHOT_PATH.search(path):
        return None
    mark = _fingerprint(scan.single(device), root.findings)
    for name, other in roots.items():
        same_base = name != device and _base(name) == _base(device)
        if not same_base or _SNAPSHOT_PATH.search(name.removeprefix(_prefix(name))):
            continue
        if mark == _fingerprint(scan.single(name), other.findings):
            return name
    return None


def _base(device: str) -> str:
    """The device beneath a btrfs subvolume."""
    match = re.match(r"btrfsvol:(/dev/(?:mapper/[^/]+|[^/]+/[^/]+(?=/)|[^/]+))", device)
    return match[1] if match else device


def _prefix(device: str) -> str:
    return f"btrfsvol:{_base(device)}/"


def _fingerprint(tree: GuestTree, findings: Findings) -> tuple[bytes | None, ...]:
    paths = (b"/etc/machine-id", b"/etc/os-release", b"/etc/hostname")
    return tuple(findings.read(tree, "snapshots", path) for path in paths)


# --- systems that libguestfs knows better ---------------------------------------------------


def _inspect_foreign(scan: _Scan) -> list[Inspection]:
    if not scan.foreign:
        return []
    inspect: Callable[[], list[Inspection]] | None
    inspect = getattr(scan.session.engine, "inspect_foreign", None)
    if inspect is not None:
        return inspect()
    device, kind = scan.foreign[0]
    error = DirectUnsupportedError(
        f"{device}: holds {kind}, which only the appliance can inspect",
        hint="--engine appliance, or leave the choice to auto",
    )
    if not scan.tolerant or not scan.roots:
        raise error
    scan.session.warn("inspect.foreign", error.message)
    return []
