"""What package managers downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove, remove_paths

# apt's folders stay, and its lock, as with apt-get clean.
APT = "/var/cache/apt/archives"
PATTERNS = (
    "/var/cache/apt/*.bin",
    "/var/cache/apk/*",
    "/var/cache/dnf/*",
    "/var/cache/libdnf5/*",
    "/var/cache/PackageKit/*",
    "/var/cache/pacman/pkg/*",
    "/var/cache/xbps/*",
    "/var/cache/yum/*",
    "/var/cache/zypp/*",
)


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    files = (path for path, _ in guest.files_below(APT))
    yield from remove_paths(guest, (path for path in files if not path.endswith(b"/lock")))
    yield from remove(guest, *PATTERNS)


operation = Operation(
    name="package-manager-cache",
    heading="Remove the packages that were downloaded",
    description="Caches of apt, apk, dnf, yum, zypper, pacman, xbps and PackageKit.",
    order=95,  # after customize: also what its programs make
    plan=_plan,
)
