"""What is known about one operating system found on the disks: the records.

Text comes from the guest: it may hold anything but NUL, with bytes that are not UTF-8 as lone
surrogates (``surrogateescape``).  An empty string, an empty tuple or a zero version means "not
found"; a `Notice` of code ``inspect.<field>`` says when that is because something is damaged.
The values of `distro`, `product_name`, the versions, `package_format` and `package_management` are
libguestfs's words, so that scripts written for virt-inspector go on working; `pretty_name`, `id`
and `id_like` carry what os-release really says.  docs/inspection.md lists where we differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from imgtools.guest.packages.application import Application
from imgtools.model.notices import Notice

__all__ = [
    "Application",
    "Bootloader",
    "GuestFilesystem",
    "Inspection",
    "Kernel",
    "Mountpoint",
    "Service",
    "User",
    "WindowsDetails",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mountpoint:
    """Where the guest mounts what; ``device`` is a mountable."""

    path: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFilesystem:
    """A filesystem (or swap) that belongs to the guest; ``size`` is its device's, in bytes."""

    device: str
    type: str = ""
    label: str = ""
    uuid: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image in the guest.

    ``initramfs`` is its guest path or empty; ``modules`` the folder of its modules or empty.
    """

    version: str
    path: str
    initramfs: str = ""
    modules: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootloader:
    """What boots the guest: ``grub2``, ``grub-legacy``, ``systemd-boot``, ``extlinux`` …

    ``config`` is the guest path of its configuration; one on an ESP that the guest does not
    mount is written ``ESP:/path``.
    """

    type: str
    config: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account with a login shell.

    ``password`` is ``set``, ``locked``, ``empty`` (anyone may log in) or ``unknown``;
    ``ssh_keys`` counts the keys in authorized_keys.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    password: str
    ssh_keys: int = 0

    @property
    def login_methods(self) -> tuple[str, ...]:
        """``password``, ``no-password`` and ``ssh-key``, those that work."""
        methods = {"set": ("password",), "empty": ("no-password",)}.get(self.password, ())
        return (*methods, "ssh-key") if self.ssh_keys else methods


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service started at boot; ``wanted_by`` are its targets or runlevels, sorted."""

    name: str
    manager: str
    wanted_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsDetails:
    """What only a Windows guest has; ``drive_mappings`` are (letter, device) pairs."""

    systemroot: str = ""
    current_control_set: str = ""
    drive_mappings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One operating system.  ``root`` is the mountable that holds it.

    ``type`` is ``linux``, ``windows``, ``freebsd`` …; ``firmware`` lists ``bios`` and ``uefi``,
    those that the disk is prepared for; ``snapshots`` are btrfs subvolumes that are copies of this
    root; ``icon`` is a PNG in base64, or empty.
    """

    root: str
    type: str = "unknown"
    distro: str = ""
    id: str = ""
    id_like: tuple[str, ...] = ()
    product_name: str = ""
    pretty_name: str = ""
    product_variant: str = ""
    major_version: int = 0
    minor_version: int = 0
    build_id: str = ""
    arch: str = ""
    hostname: str = ""
    machine_id: str = ""
    package_format: str = ""
    package_management: str = ""
    osinfo: str = ""
    mountpoints: tuple[Mountpoint, ...] = ()
    filesystems: tuple[GuestFilesystem, ...] = ()
    snapshots: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    bootloader: Bootloader | None = None
    kernels: tuple[Kernel, ...] = ()
    init: str = ""
    timezone: str = ""
    locale: str = ""
    users: tuple[User, ...] = ()
    services: tuple[Service, ...] = ()
    windows: WindowsDetails | None = None
    applications: tuple[Application, ...] = ()
    icon: str = ""
    warnings: tuple[Notice, ...] = ()

    @property
    def version(self) -> str:
        """The version as people write it: ``39``, ``9.3``, ``22.04``; empty if there is none."""
        if not (self.major_version or self.minor_version):
            return ""
        if "ubuntu" in (self.distro, *self.id_like):
            return f"{self.major_version}.{self.minor_version:02}"
        return str(self.major_version) + (f".{self.minor_version}" if self.minor_version else "")
