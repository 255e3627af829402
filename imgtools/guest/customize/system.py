"""What the guest is, as far as customizing depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from imgtools.errors import GuestFileNotFoundError, GuestNotADirectoryError, GuestOperationError
from imgtools.guest.linux.distros import family
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.release import find_release
from imgtools.guest.linux.services import find_init
from imgtools.guest.tree import GuestTree

MAX_TEXT = 16 << 20
"""Bytes of the largest text file of the guest that is edited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The guest's distribution: libguestfs's name, `distros.family`, major version (0: unknown),
    and `services.find_init`'s word."""

    distro: str
    family: str
    major: int
    init: str
    name: str

    @property
    def is_red_hat(self) -> bool:
        """Fedora, RHEL and their kin."""
        return self.family in ("fedora", "rhel")

    def at_least(self, **releases: int) -> bool | None:
        """Whether the version is that of ``distro=major`` or above; None for other distributions.

        The kin of RHEL count as ``rhel``, those of SUSE as ``suse``.
        """
        kin = self.family if self.family in ("rhel", "suse") else self.distro
        return self.major >= releases[kin] if kin in releases else None


def find_system(tree: GuestTree, option: str) -> System:
    """The guest's distribution.  Raises GuestOperationError for what is not Linux."""
    release = find_release(tree, Findings("guest"))
    if not release.final_distro and not tree.is_file(b"/etc/passwd"):
        kind = "Windows" if tree.is_dir(b"/Windows/System32") else "no Linux that we recognise"
        raise GuestOperationError(f"{option}: the guest is {kind}", hint="it is for Linux guests")
    return System(
        distro=release.final_distro,
        family=family(release.final_distro, release.id_like),
        major=release.version[0] if release.version else 0,
        init=find_init(tree),
        name=release.pretty_name or release.product_name or release.final_distro or "unknown",
    )


def read_text(tree: GuestTree, path: bytes) -> bytes | None:
    """The content of a file; None where there is none."""
    try:
        return tree.read(path, limit=MAX_TEXT)
    except (GuestFileNotFoundError, GuestNotADirectoryError):
        return None
