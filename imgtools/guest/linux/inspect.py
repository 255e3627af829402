"""Inspect one Linux guest: ask every reader, and let each fail alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from imgtools.guest.inspection import GuestFilesystem, Inspection, Mountpoint
from imgtools.guest.linux import boot, distros, elf, icon, identity, services, users
from imgtools.guest.linux.devices import disks_by_device
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.mounts import Layout, MountFunction, assemble
from imgtools.guest.linux.release import Release, find_release
from imgtools.guest.packages import READERS, Application, collect_packages
from imgtools.guest.tree import GuestTree, Mount
from imgtools.model.storage import Filesystem, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root filesystem that was found, and what its fstab says."""

    filesystem: Filesystem
    layout: Layout
    findings: Findings
    snapshots: tuple[str, ...] = ()


def inspect_linux(
    root: Root, storage: Storage, mount: MountFunction, *, applications: bool, with_icon: bool
) -> Inspection:
    """Everything the guest on ``root`` says about itself."""
    findings = root.findings
    tree = assemble(root.filesystem, root.layout, storage, mount, findings)
    release = findings.attempt("distro", lambda: find_release(tree, findings), Release())
    result = _identity(tree, findings, release, Inspection(root=root.filesystem.device))
    result = _settings(tree, findings, result)
    result = _booting(tree, root, storage, mount, result)
    apps: tuple[Application, ...] = ()
    if applications:
        apps = _applications(tree, findings, result.package_format)
    picture = ""
    if with_icon:
        find = icon.find_icon
        picture = findings.attempt(
            "icon", lambda: find(tree, result.distro, result.major_version), ""
        )
    return dataclasses.replace(
        result,
        mountpoints=_mountpoints(root),
        filesystems=_filesystems(root, storage),
        snapshots=root.snapshots,
        applications=apps,
        icon=picture,
        warnings=tuple(findings.warnings),
    )


def _identity(
    tree: GuestTree, findings: Findings, release: Release, result: Inspection
) -> Inspection:
    distro = release.final_distro
    major, minor = release.version or (0, 0)
    kin = distros.family(distro, release.id_like)
    has_dnf = findings.attempt(
        "package-management", lambda: tree.is_file(b"/usr/bin/dnf"), default=False
    )
    return dataclasses.replace(
        result,
        type="linux",
        distro=distro,
        id=release.id,
        id_like=release.id_like,
        product_name=release.product_name,
        pretty_name=release.pretty_name or release.product_name,
        major_version=major,
        minor_version=minor,
        build_id=release.build_id,
        arch=elf.find_arch(tree, findings),
        package_format=distros.package_format(kin) or _format_of_database(tree, findings),
        package_management=distros.package_management(distro, kin, major, has_dnf=has_dnf),
        osinfo=distros.osinfo_id(distro, major, minor),
    )


def _format_of_database(tree: GuestTree, findings: Findings) -> str:
    """For a distribution of no known family: the database that is there."""
    marks = {
        "deb": b"/var/lib/dpkg/status",
        "rpm": b"/var/lib/rpm",
        "pacman": b"/var/lib/pacman/local",
        "apk": b"/lib/apk/db/installed",
    }
    for name, path in marks.items():
        if findings.attempt("package-format", lambda p=path: tree.exists(p), default=False):  # type: ignore[misc]
            return name
    return ""


def _settings(tree: GuestTree, findings: Findings, result: Inspection) -> Inspection:
    attempt = findings.attempt
    init = attempt("init", lambda: services.find_init(tree), "")
    return dataclasses.replace(
        result,
        hostname=attempt("hostname", lambda: identity.find_hostname(tree, findings), ""),
        machine_id=attempt("machine-id", lambda: identity.find_machine_id(tree, findings), ""),
        timezone=attempt("timezone", lambda: identity.find_timezone(tree, findings), ""),
        locale=attempt("locale", lambda: identity.find_locale(tree, findings), ""),
        users=attempt("users", lambda: users.find_users(tree, findings), ()),
        init=init,
        services=attempt("services", lambda: services.find_services(tree, findings, init), ()),
    )


def _booting(
    tree: GuestTree, root: Root, storage: Storage, mount: MountFunction, result: Inspection
) -> Inspection:
    findings = root.findings
    disks = disks_by_device(storage)
    mine = frozenset(root.filesystem.disks)
    partitions = [p for p in storage.partitions if disks.get(p.parent, frozenset()) & mine]
    esp = None
    for partition in partitions:
        mounted = any(m.device == partition.name for m in tree.mounts)
        if boot.is_esp(partition) and not mounted and _is_mountable(storage, partition.name):
            name = partition.name
            esp = findings.attempt("firmware", lambda n=name: _single(n, mount), None)  # type: ignore[misc]
            break
    loader = findings.attempt("bootloader", lambda: boot.find_bootloader(tree, esp), None)
    return dataclasses.replace(
        result,
        kernels=findings.attempt("kernels", lambda: boot.find_kernels(tree, findings), ()),
        bootloader=loader,
        firmware=findings.attempt(
            "firmware", lambda: boot.find_firmware(tree, esp, partitions, loader), ()
        ),
    )


def _is_mountable(storage: Storage, device: str) -> bool:
    return any(fs.device == device and fs.mountable for fs in storage.filesystems)


def _single(device: str, mount: MountFunction) -> GuestTree | None:
    return GuestTree([Mount(b"/", device, mount(device))])


def _applications(
    tree: GuestTree, findings: Findings, package_format: str
) -> tuple[Application, ...]:
    if package_format not in READERS:
        return ()
    found = findings.attempt("applications", lambda: collect_packages(tree, package_format), None)
    if found is None:
        return ()
    for complaint in found.complaints:
        findings.warn("applications", complaint)
    return tuple(found.sorted())


def _mountpoints(root: Root) -> tuple[Mountpoint, ...]:
    pairs = root.layout.mountpoints
    if not root.layout.entries:
        pairs = [("/", root.filesystem.device)]
    pairs = sorted(pairs, key=lambda pair: (len(pair[0]), pair[0]))
    return tuple(Mountpoint(path=path, device=device) for path, device in pairs)


def _filesystems(root: Root, storage: Storage) -> tuple[GuestFilesystem, ...]:
    known = {fs.device: fs for fs in storage.filesystems}
    found = []
    for device in sorted(root.layout.devices or [root.filesystem.device]):
        fs = known.get(device)
        if fs is None:
            found.append(GuestFilesystem(device=device))
        else:
            kind = "" if fs.type == "unknown" else fs.type
            found.append(
                GuestFilesystem(
                    device=device, type=kind, label=fs.label, uuid=fs.uuid, size=fs.size
                )
            )
    return tuple(found)
