"""Which Linux this is: os-release, lsb-release, and the release files of older times.

The order of the files and what each may set follow libguestfs's daemon/inspect_fs_unix.ml, since
`product_name` and the versions must be virt-inspector's: Debian's os-release knows only the
major version, so its ``debian_version`` is read as well, and then *is* the product name.  Beyond
it: the real ID, ID_LIKE and PRETTY_NAME are kept too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from imgtools.guest.linux.distros import OTHER_IDS, distro_of_id
from imgtools.guest.linux.findings import (
    Findings,
    decode,
    key_values,
    shell_unquote,
    simple_unquote,
)
from imgtools.guest.tree import GuestTree

MAX_VERSION = (1 << 31) - 1
_ROLLING = frozenset(("archlinux", "gentoo", "voidlinux"))
_PARTIAL_VERSION = frozenset(("debian", "centos", "rocky"))
_ID = re.compile(r"[a-z0-9._-]{1,64}\Z")


@dataclass(slots=True)
class Release:
    """What has been found so far; `version` is (major, minor)."""

    distro: str = ""
    product_name: str = ""
    version: tuple[int, int] | None = None
    id: str = ""
    id_like: tuple[str, ...] = ()
    pretty_name: str = ""
    build_id: str = ""

    @property
    def final_distro(self) -> str:
        """libguestfs's name; the os-release ID of what libguestfs has no name for."""
        if not self.id or distro_of_id(self.id):
            return self.distro
        return OTHER_IDS.get(self.id, self.id)


def find_release(tree: GuestTree, findings: Findings) -> Release:
    """Identify the guest's distribution."""
    release = Release()
    for path, parse in _TESTS:
        if parse(tree, findings, path, release):
            break
    return release


# --- os-release, lsb-release ---------------------------------------------------------------------


def _os_release(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
    lines = findings.lines(tree, "distro", path)
    if lines is None and path == b"/etc/os-release":
        # os-release(5): the vendor's copy counts where /etc has none.
        lines = findings.lines(tree, "distro", b"/usr/lib/os-release")
    if lines is None:
        return False
    for key, raw in key_values(lines, shell_unquote):
        _os_release_field(key, decode(raw), raw, release, findings)
    if not release.distro or not release.product_name:
        return False
    if release.version is None and release.distro in _ROLLING:
        release.version = (0, 0)
    if release.version is None:
        return False
    return not (release.distro in _PARTIAL_VERSION and release.version[1] == 0)


def _os_release_field(
    key: bytes, value: str, raw: bytes, release: Release, findings: Findings
) -> None:
    if key == b"ID":
        identity = value.lower()
        release.distro = distro_of_id(identity) or release.distro
        release.id = identity if _ID.match(identity) else ""
    elif key == b"ID_LIKE":
        release.id_like = tuple(w for w in value.lower().split()[:16] if _ID.match(w))
    elif key == b"PRETTY_NAME":
        release.product_name = release.pretty_name = value
    elif key == b"BUILD_ID":
        release.build_id = value
    elif key == b"VERSION_ID":
        update = re.match(rb"V(\d{1,9})Update(\d{1,9})\Z", raw)  # NeoKylin
        if update:
            release.version = (int(update[1]), int(update[2]))
        else:
            set_version(raw, release, findings)


def _lsb_release(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
    lines = findings.lines(tree, "distro", path)
    useful = False
    for key, value in key_values(lines or [], simple_unquote):
        if key == b"DISTRIB_ID" and value in _LSB_IDS:
            release.distro = _LSB_IDS[value]
            useful = True
        elif key == b"DISTRIB_RELEASE":
            set_version(value, release, findings)
        elif key == b"DISTRIB_DESCRIPTION":
            release.product_name = decode(value)
            useful = True
    return useful


_LSB_IDS = {
    b"CoreOS": "coreos",
    b"LinuxMint": "linuxmint",
    b"Mageia": "mageia",
    b"Ubuntu": "ubuntu",
}


def set_version(raw: bytes, release: Release, findings: Findings) -> None:
    """Take major and minor from the first ``N.N``, or ``N``, in ``raw``."""
    match = re.search(rb"([0-9]+)\.([0-9]+)", raw) or re.search(rb"([0-9]+)", raw)
    version = _numbers(match)
    if version is not None:
        release.version = version
    elif raw:
        findings.warn("version", f"no version number in {decode(raw[:80])!r}")


def _numbers(match: re.Match[bytes] | None) -> tuple[int, int] | None:
    groups = [group or b"0" for group in match.groups()] if match else []
    if not groups or any(len(group) > 10 or int(group) > MAX_VERSION for group in groups):
        return None
    return int(groups[0]), int(groups[1]) if len(groups) > 1 else 0


# --- release files -------------------------------------------------------------------------------

_Test = Callable[[GuestTree, Findings, bytes, Release], bool]


def _first_line(distro: str, pattern: bytes | None = None) -> _Test:
    """A test that takes the first line as product name; ``pattern`` must then match it."""
    regex = re.compile(pattern) if pattern else None

    def test(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
        lines = findings.lines(tree, "distro", path)
        line = lines[0].rstrip(b"\r") if lines else b""
        if not line:
            return False
        release.product_name = decode(line)
        release.distro = distro
        if regex is None:
            match = re.search(rb"([0-9]+)\.([0-9]+)", line) or re.search(rb"([0-9]+)", line)
        else:
            match = regex.search(line)
            if match is None:
                return False
        version = _numbers(match) if match and match.groups() else None
        release.version = version or release.version
        return True

    return test


def _only_name(distro: str) -> _Test:
    def test(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
        if findings.read(tree, "distro", path) is None:
            return False
        release.distro = distro
        return True

    return test


def _suse_release(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
    lines = findings.lines(tree, "distro", path)
    if not lines or not lines[0]:
        return False
    release.product_name = decode(lines[0])
    second, third = [*lines[1:3], b"", b""][:2]
    if re.match(rb"SUSE (Linux|LINUX) Enterprise |Novell Linux Desktop ", lines[0]):
        release.distro = "sles"
        major = re.match(rb"VERSION = ([0-9]{1,9})", second)
        minor = re.match(rb"PATCHLEVEL = ([0-9]{1,9})", third)
        release.version = (int(major[1]), int(minor[1]) if minor else 0) if major else None
    elif re.match(rb"(openSUSE|SuSE Linux|SUSE LINUX) ", lines[0]):
        set_version(second, release, findings)
        release.distro = "opensuse"
    return True


def _br_version(tree: GuestTree, findings: Findings, path: bytes, release: Release) -> bool:
    cirros = tree.is_file(b"/usr/share/cirros/logo")
    return _first_line("cirros" if cirros else "buildroot")(tree, findings, path, release)


def _versions(distro: str, name: bytes) -> list[_Test]:
    """Tests for "NAME … release 5 Update 3", "NAME … release 5.3" and "NAME … release 5"."""
    return [
        _first_line(distro, name + rb".*release (\d+).*Update (\d+)"),
        _first_line(distro, name + rb".*release (\d+)\.(\d+)"),
        _first_line(distro, name + rb".*release (\d+)"),
    ]


_RH = b"/etc/redhat-release"
_TESTS: list[tuple[bytes, _Test]] = [
    (b"/etc/os-release", _os_release),
    (b"/etc/lsb-release", _lsb_release),
    # Derivatives ship a redhat-release as well, so their own files come first.
    (
        b"/etc/openmandriva-release",
        _first_line("openmandriva", rb"OpenMandriva.*release (\d+)\.(\d+)\.?(?:\d+)? .*"),
    ),
    *[(b"/etc/oracle-release", test) for test in _versions("oraclelinux", b"Oracle Linux")],
    *[(b"/etc/centos-release", test) for test in _versions("centos", b"CentOS")],
    *[(b"/etc/rocky-release", test) for test in _versions("rocky", b"Rocky Linux")[1:]],
    (b"/etc/altlinux-release", _first_line("altlinux")),
    (_RH, _first_line("fedora", rb"Fedora release (\d+)")),
    *[(_RH, test) for test in _versions("rhel", b"Red Hat")],
    *[(_RH, test) for test in _versions("centos", b"CentOS")],
    *[(_RH, test) for test in _versions("rocky", b"Rocky Linux")[1:]],
    *[(_RH, test) for test in _versions("scientificlinux", b"Scientific Linux")],
    (_RH, _first_line("redhat-based")),
    (_RH, _only_name("redhat-based")),
    (b"/etc/debian_version", _first_line("debian")),
    (b"/etc/pardus-release", _first_line("pardus")),
    (b"/etc/arch-release", _only_name("archlinux")),  # the file is empty
    (b"/etc/gentoo-release", _first_line("gentoo")),
    (b"/etc/meego-release", _first_line("meego")),
    (b"/etc/slackware-version", _first_line("slackware")),
    (b"/etc/ttylinux-target", _first_line("ttylinux")),
    (b"/etc/SuSE-release", _suse_release),
    (b"/etc/SuSE-release", _only_name("suse-based")),
    (b"/etc/cirros/version", _first_line("cirros")),
    (b"/etc/br-version", _br_version),
    (b"/etc/alpine-release", _first_line("alpinelinux")),
    (b"/etc/frugalware-release", _first_line("frugalware", rb"Frugalware (\d+)\.(\d+)")),
    (b"/etc/pld-release", _first_line("pldlinux", rb"(\d+)\.(\d+) PLD Linux")),
]
