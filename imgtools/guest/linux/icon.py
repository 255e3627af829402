"""The distribution's logo, where it is a PNG file of reasonable size in the guest.

Files and bounds are those of libguestfs's lib/inspect-icon.c, so that virt-inspector's ``<icon>``
is met.  The bytes are the guest's: nobody should decode them without a sandbox.
"""

from __future__ import annotations

import base64

from imgtools.guest.tree import GuestTree

_ICONS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    "fedora": (0, (b"/usr/share/icons/hicolor/96x96/apps/fedora-logo-icon.png",)),
    "debian": (2048, (b"/usr/share/pixmaps/debian-logo.png",)),
    "ubuntu": (
        2048,
        (
            b"/usr/share/icons/gnome/24x24/places/ubuntu-logo.png",
            b"/usr/share/help/C/ubuntu-help/figures/ubuntu-logo.png",
        ),
    ),
    "mageia": (10240, (b"/usr/share/icons/mageia.png",)),
    "opensuse": (
        10240,
        (
            b"/usr/share/icons/hicolor/48x48/apps/distributor.png",
            b"/usr/share/icons/hicolor/24x24/apps/distributor.png",
        ),
    ),
    "voidlinux": (20480, (b"/usr/share/void-artwork/void-logo.png",)),
    "altlinux": (20480, (b"/usr/share/icons/hicolor/48x48/apps/altlinux.png",)),
    "gentoo": (10240, (b"/usr/share/icons/gentoo/48x48/gentoo.png",)),
    "openmandriva": (
        10240,
        (b"/usr/share/icons/large/mandriva.png", b"/usr/share/icons/mandriva.png"),
    ),
}
_ICONS["sles"] = _ICONS["suse-based"] = _ICONS["opensuse"]

_RHEL = frozenset(("rhel", "redhat-based", "centos", "rocky", "scientificlinux", "oraclelinux"))
_RHEL_ICONS: tuple[tuple[int, tuple[bytes, ...]], ...] = (
    (102400, (b"/usr/share/pixmaps/redhat/shadowman-transparent.png",)),  # before 7
    (102400, (b"/usr/share/icons/hicolor/96x96/apps/system-logo-icon.png",)),
)


def find_icon(tree: GuestTree, distro: str, major: int) -> str:
    """The logo in base64, empty if there is none."""
    if distro in _RHEL:
        limit, paths = _RHEL_ICONS[major >= 7]
    else:
        limit, paths = _ICONS.get(distro, (0, ()))
    for path in paths:
        if tree.is_file(path) and (png := _png(tree, path, limit)):
            return base64.b64encode(png).decode("ascii")
    return ""


def _png(tree: GuestTree, path: bytes, limit: int) -> bytes:
    """The file if it is a PNG of 16 to 1024 pixels each way and not larger than ``limit``."""
    with tree.open(path) as stream:
        head = stream.read(24)
        if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR" or len(head) < 24:
            return b""
        width, height = (int.from_bytes(head[i : i + 4], "big") for i in (16, 20))
        if not (16 <= width <= 1024 and 16 <= height <= 1024):
            return b""
        # Without a bound of its own: what the pixels would need at four bytes each.
        limit = limit or 4 * width * height
        rest = stream.read(limit - 24 + 1)
    return head + rest if len(rest) <= limit - 24 else b""
