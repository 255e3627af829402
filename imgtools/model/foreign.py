"""Guests that only libguestfs's inspection knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignApplication:
    """A program of a guest that is not Linux; fields as in libguestfs's application2."""

    name: str
    display_name: str = ""
    epoch: int = 0
    version: str = ""
    release: str = ""
    arch: str = ""
    install_path: str = ""
    publisher: str = ""
    url: str = ""
    source_package: str = ""
    summary: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignGuest:
    """A guest that is not Linux, in libguestfs's words; what is not known is empty.

    ``mountpoints`` are (mountpoint, mountable), shortest first; ``drive_mappings`` are
    (letter, mountable).
    """

    root: str
    type: str
    distro: str = ""
    product_name: str = ""
    product_variant: str = ""
    major: int = 0
    minor: int = 0
    arch: str = ""
    hostname: str = ""
    windows_systemroot: str = ""
    windows_current_control_set: str = ""
    osinfo: str = ""
    package_format: str = ""
    package_management: str = ""
    mountpoints: tuple[tuple[str, str], ...] = ()
    filesystems: tuple[str, ...] = ()
    drive_mappings: tuple[tuple[str, str], ...] = ()
    applications: tuple[ForeignApplication, ...] = ()
