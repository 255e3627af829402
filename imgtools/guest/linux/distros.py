"""What follows from the distribution: package format and manager, osinfo id.

The tables are libguestfs's (daemon/inspect_fs.ml, lib/inspect-osinfo.c); what it does not know goes
by the family that os-release's ``ID_LIKE`` names.
"""

from __future__ import annotations

from collections.abc import Sequence

# os-release ID -> libguestfs's name.  The first group is libguestfs's own table.
KNOWN_IDS = {
    "alpine": "alpinelinux",
    "altlinux": "altlinux",
    "arch": "archlinux",
    "centos": "centos",
    "coreos": "coreos",
    "debian": "debian",
    "fedora": "fedora",
    "frugalware": "frugalware",
    "gentoo": "gentoo",
    "kali": "kalilinux",
    "kylin": "kylin",
    "mageia": "mageia",
    "neokylin": "neokylin",
    "openmandriva": "openmandriva",
    "opensuse": "opensuse",
    "pardus": "pardus",
    "pld": "pldlinux",
    "rhel": "rhel",
    "rocky": "rocky",
    "sles": "sles",
    "sled": "sles",
    "ubuntu": "ubuntu",
    "void": "voidlinux",
}
# libguestfs meets these through a release file only, or under another name.
OTHER_IDS = {
    "linuxmint": "linuxmint",
    "ol": "oraclelinux",
    "scientific": "scientificlinux",
    "slackware": "slackware",
    "buildroot": "buildroot",
    "cirros": "cirros",
    "sles_sap": "sles",
    "sle-micro": "sles",
    "sl-micro": "sles",
}


def distro_of_id(identity: str) -> str | None:
    """The libguestfs name for an os-release ID that libguestfs knows."""
    if identity.startswith("opensuse-"):
        return "opensuse"
    return KNOWN_IDS.get(identity)


# Families: the distribution whose tools a relative uses.
_FAMILY = {
    "altlinux": "altlinux",
    "linuxmint": "debian",
    "kalilinux": "debian",
    "kylin": "debian",
    "ubuntu": "debian",
    "debian": "debian",
    "raspbian": "debian",
    "devuan": "debian",
    "pop": "debian",
    "neon": "debian",
    "fedora": "fedora",
    "rhel": "rhel",
    "centos": "rhel",
    "rocky": "rhel",
    "almalinux": "rhel",
    "oraclelinux": "rhel",
    "redhat-based": "rhel",
    "scientificlinux": "rhel",
    "circle": "rhel",
    "eurolinux": "rhel",
    "virtuozzo": "rhel",
    "cloudlinux": "rhel",
    "openeuler": "rhel",
    "opencloudos": "rhel",
    "tencentos": "rhel",
    "anolis": "rhel",
    "amzn": "fedora",
    "azurelinux": "fedora",
    "mariner": "fedora",
    "photon": "fedora",
    "qubes": "fedora",
    "suse": "suse",
    "opensuse": "suse",
    "sles": "suse",
    "suse-based": "suse",
    "archlinux": "arch",
    "arch": "arch",
    "alpinelinux": "alpine",
    "alpine": "alpine",
    "gentoo": "gentoo",
    "mageia": "mageia",
    "mandriva": "mageia",
    "openmandriva": "openmandriva",
    "meego": "meego",
    "neokylin": "neokylin",
    "pardus": "pardus",
    "voidlinux": "void",
}

_FORMAT = {
    "altlinux": "rpm",
    "debian": "deb",
    "fedora": "rpm",
    "rhel": "rpm",
    "suse": "rpm",
    "arch": "pacman",
    "alpine": "apk",
    "gentoo": "ebuild",
    "mageia": "rpm",
    "openmandriva": "rpm",
    "meego": "rpm",
    "neokylin": "rpm",
    "pardus": "pisi",
    "void": "xbps",
}

_MANAGEMENT = {
    "altlinux": "apt",
    "debian": "apt",
    "suse": "zypper",
    "arch": "pacman",
    "alpine": "apk",
    "gentoo": "portage",
    "mageia": "urpmi",
    "openmandriva": "dnf",
    "meego": "yum",
    "neokylin": "dnf",
    "pardus": "pisi",
    "void": "xbps",
}


def family(distro: str, id_like: Sequence[str]) -> str:
    """The family of a distribution, by its name or else by the first ID_LIKE that has one."""
    for name in (distro, *id_like):
        found = _FAMILY.get(name) or _FAMILY.get(distro_of_id(name) or "")
        if found:
            return found
    return ""


def package_format(kin: str) -> str:
    """libguestfs's package format for a family."""
    return _FORMAT.get(kin, "")


def package_management(distro: str, kin: str, major: int, *, has_dnf: bool) -> str:
    """libguestfs's package manager for a distribution; ``has_dnf`` if /usr/bin/dnf is there."""
    if kin == "fedora":
        return _fedora_management(distro, major, has_dnf=has_dnf)
    if kin != "rhel":
        return _MANAGEMENT.get(kin, "")
    # No version at all: probably a release file that could not be parsed.
    return "dnf" if major >= 8 else "yum" if major >= 5 else "up2date" if major >= 2 else ""


def _fedora_management(distro: str, major: int, *, has_dnf: bool) -> str:
    if distro != "fedora":
        return "dnf" if has_dnf else "yum"
    if major >= 22 and has_dnf:
        return "dnf"
    return "yum" if major >= 1 else ""


_ROLLING = frozenset(("archlinux", "gentoo", "voidlinux"))
_BY_MAJOR = {"centos": 8, "rocky": 8, "almalinux": 8, "debian": 4, "fedora": 0, "mageia": 0}


def osinfo_id(distro: str, major: int, minor: int) -> str:
    """The libosinfo short id as libguestfs guesses it; empty if it cannot."""
    if distro in _BY_MAJOR and major >= _BY_MAJOR[distro]:
        return f"{distro}{major}"
    if distro == "centos" and major == 7:
        return "centos7.0"
    if distro == "sles":
        return f"sles{major}sp{minor}" if minor else f"sles{major}"
    if distro == "ubuntu":
        return f"ubuntu{major}.{minor:02}"
    if distro in _ROLLING:
        return distro
    if distro == "altlinux" and major >= 8:
        return f"alt{major}.{minor}"
    if distro == "altlinux" or (distro and (major > 0 or minor > 0)):
        return f"{distro}{major}.{minor}"
    return ""
