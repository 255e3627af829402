"""Which distribution it is: libguestfs's answers on its own ground, better ones beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.linux.findings import Findings, shell_unquote
from imgtools.guest.linux.release import find_release
from tests.unit.guest.guests import DEBIAN, Files, guest_tree, inspect_files

pytestmark = pytest.mark.unit


def os_release(**fields: str) -> bytes:
    return "".join(f'{key}="{value}"\n' for key, value in fields.items()).encode()


def guest(files: Files) -> dict[str, bytes | str | None]:
    return {"bin/": None, "etc/hosts": b"", **files}


CASES: list[tuple[str, Files, tuple[object, ...]]] = [
    (
        "fedora",
        {
            "etc/os-release": os_release(ID="fedora", VERSION_ID="39", PRETTY_NAME="Fedora 39"),
            "usr/bin/dnf": b"",
        },
        ("fedora", "Fedora 39", 39, 0, "rpm", "dnf", "fedora39"),
    ),
    (
        "fedora without dnf",
        {"etc/os-release": os_release(ID="fedora", VERSION_ID="39", PRETTY_NAME="F")},
        ("fedora", "F", 39, 0, "rpm", "yum", "fedora39"),
    ),
    (
        "rhel",
        {"etc/os-release": os_release(ID="rhel", VERSION_ID="9.2", PRETTY_NAME="RHEL 9.2")},
        ("rhel", "RHEL 9.2", 9, 2, "rpm", "dnf", "rhel9.2"),
    ),
    (
        "centos: the minor version is only in its release file",
        {
            "etc/os-release": os_release(ID="centos", VERSION_ID="7", PRETTY_NAME="CentOS 7"),
            "etc/centos-release": b"CentOS Linux release 7.9.2009 (Core)\n",
        },
        ("centos", "CentOS Linux release 7.9.2009 (Core)", 7, 9, "rpm", "yum", "centos7.0"),
    ),
    (
        "old centos",
        {"etc/redhat-release": b"CentOS release 5 (Final) Update 3\n"},
        ("centos", "CentOS release 5 (Final) Update 3", 5, 3, "rpm", "yum", "centos5.3"),
    ),
    (
        "rocky",
        {
            "etc/os-release": os_release(ID="rocky", VERSION_ID="9.3", PRETTY_NAME="Rocky 9.3"),
        },
        ("rocky", "Rocky 9.3", 9, 3, "rpm", "dnf", "rocky9"),
    ),
    (
        "oracle, which libguestfs knows by its release file only",
        {
            "etc/os-release": os_release(ID="ol", VERSION_ID="8.8", PRETTY_NAME="Oracle 8.8"),
            "etc/oracle-release": b"Oracle Linux Server release 8.8\n",
        },
        ("oraclelinux", "Oracle Linux Server release 8.8", 8, 8, "rpm", "dnf", "oraclelinux8.8"),
    ),
    (
        "alma keeps its own name",
        {
            "etc/os-release": os_release(
                ID="almalinux", ID_LIKE="rhel centos fedora", VERSION_ID="9.3", PRETTY_NAME="Alma"
            ),
            "etc/redhat-release": b"AlmaLinux release 9.3 (Shamrock Pampas Cat)\n",
        },
        (
            "almalinux",
            "AlmaLinux release 9.3 (Shamrock Pampas Cat)",
            9,
            3,
            "rpm",
            "dnf",
            "almalinux9",
        ),
    ),
    (
        "ubuntu",
        {"etc/os-release": os_release(ID="ubuntu", VERSION_ID="22.04", PRETTY_NAME="U 22.04.3")},
        ("ubuntu", "U 22.04.3", 22, 4, "deb", "apt", "ubuntu22.04"),
    ),
    (
        "mint",
        {
            "etc/os-release": os_release(
                ID="linuxmint", ID_LIKE="ubuntu debian", VERSION_ID="21", PRETTY_NAME="Mint 21"
            ),
            "etc/lsb-release": b"DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=21\n"
            b'DISTRIB_DESCRIPTION="Linux Mint 21 Vanessa"\n',
        },
        ("linuxmint", "Linux Mint 21 Vanessa", 21, 0, "deb", "apt", "linuxmint21.0"),
    ),
    (
        "debian testing",
        {
            "etc/os-release": os_release(ID="debian", VERSION_ID="13", PRETTY_NAME="Debian 13"),
            "etc/debian_version": b"trixie/sid\n",
        },
        ("debian", "trixie/sid", 13, 0, "deb", "apt", "debian13"),
    ),
    (
        "opensuse",
        {
            "etc/os-release": os_release(
                ID="opensuse-leap", VERSION_ID="15.5", PRETTY_NAME="openSUSE Leap 15.5"
            )
        },
        ("opensuse", "openSUSE Leap 15.5", 15, 5, "rpm", "zypper", "opensuse15.5"),
    ),
    (
        "sles",
        {"etc/os-release": os_release(ID="sles", VERSION_ID="15.4", PRETTY_NAME="SLES 15 SP4")},
        ("sles", "SLES 15 SP4", 15, 4, "rpm", "zypper", "sles15sp4"),
    ),
    (
        "old sles",
        {
            "etc/SuSE-release": b"SUSE Linux Enterprise Server 11 (x86_64)\n"
            b"VERSION = 11\nPATCHLEVEL = 4\n"
        },
        (
            "sles",
            "SUSE Linux Enterprise Server 11 (x86_64)",
            11,
            4,
            "rpm",
            "zypper",
            "sles11sp4",
        ),
    ),
    (
        "arch has no version",
        {"etc/os-release": os_release(ID="arch", PRETTY_NAME="Arch Linux", BUILD_ID="rolling")},
        ("archlinux", "Arch Linux", 0, 0, "pacman", "pacman", "archlinux"),
    ),
    (
        "arch of old",
        {"etc/arch-release": b""},
        ("archlinux", "", 0, 0, "pacman", "pacman", "archlinux"),
    ),
    (
        "alpine",
        {
            "etc/os-release": os_release(
                ID="alpine", VERSION_ID="3.18.4", PRETTY_NAME="Alpine Linux v3.18"
            )
        },
        ("alpinelinux", "Alpine Linux v3.18", 3, 18, "apk", "apk", "alpinelinux3.18"),
    ),
    (
        "a stranger with ID_LIKE",
        {
            "etc/os-release": os_release(
                ID="lemonos", ID_LIKE="whatever debian", VERSION_ID="3.1", PRETTY_NAME="Lemon 3.1"
            )
        },
        ("lemonos", "Lemon 3.1", 3, 1, "deb", "apt", "lemonos3.1"),
    ),
    (
        "a stranger whose database tells",
        {
            "etc/os-release": os_release(ID="lemonos", VERSION_ID="3.1", PRETTY_NAME="Lemon"),
            "lib/apk/db/installed": b"",
        },
        ("lemonos", "Lemon", 3, 1, "apk", "", "lemonos3.1"),
    ),
    (
        "nothing but a root",
        {},
        ("", "", 0, 0, "", "", ""),
    ),
]


@pytest.mark.parametrize(("files", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_release(files: Files, expected: tuple[object, ...]) -> None:
    found = inspect_files(guest(files))
    assert (
        found.distro,
        found.product_name,
        found.major_version,
        found.minor_version,
        found.package_format,
        found.package_management,
        found.osinfo,
    ) == expected


def test_debian_keeps_its_pretty_name_beside_the_point_release() -> None:
    found = inspect_files(DEBIAN)
    assert found.product_name == "12.11"
    assert found.pretty_name == "Debian GNU/Linux 12 (bookworm)"
    assert (found.major_version, found.minor_version) == (12, 11)
    assert found.arch == "x86_64"
    assert found.hostname == "lemon"


# --- damage costs one field ----------------------------------------------------------------------


def codes(files: Files) -> set[str]:
    return {warning.code for warning in inspect_files(files).warnings}


def test_a_version_in_words_costs_the_version() -> None:
    files = {**DEBIAN, "usr/lib/os-release": os_release(ID="debian", VERSION_ID="twelve.x")}
    del files["etc/debian_version"]
    found = inspect_files(files)
    assert (found.distro, found.major_version, found.package_format) == ("debian", 0, "deb")
    assert found.hostname == "lemon"
    assert "inspect.version" in {w.code for w in found.warnings}


def test_a_huge_version_number_costs_the_version() -> None:
    files = guest({"etc/os-release": os_release(ID="rhel", VERSION_ID="9" * 400)})
    assert inspect_files(files).major_version == 0
    assert "inspect.version" in codes(files)


def test_os_release_of_fifty_megabytes_is_refused() -> None:
    huge = b"ID=debian\n" + b"#" * (50 << 20)
    files = {**DEBIAN, "usr/lib/os-release": huge}
    found = inspect_files(files)
    assert (found.distro, found.product_name) == ("debian", "12.11")  # by debian_version
    assert "inspect.distro" in {w.code for w in found.warnings}


def test_os_release_as_a_directory() -> None:
    files = {k: v for k, v in DEBIAN.items() if "os-release" not in k}
    found = inspect_files({**files, "etc/os-release/sub": b"ID=fedora\n"})
    assert (found.distro, found.product_name) == ("debian", "12.11")
    assert "inspect.distro" in {w.code for w in found.warnings}


def test_a_looped_debian_version() -> None:
    found = inspect_files({**DEBIAN, "etc/debian_version": "debian_version"})
    assert (found.distro, found.product_name) == ("debian", "Debian GNU/Linux 12 (bookworm)")
    assert (found.major_version, found.minor_version) == (12, 0)
    assert found.applications
    assert "inspect.distro" in {w.code for w in found.warnings}


def test_os_release_that_leads_out_of_the_guest_stays_inside() -> None:
    files = {**DEBIAN, "etc/os-release": "../../../../../../etc/passwd-of-nobody"}
    assert inspect_files(files).distro == "debian"


@given(st.binary(max_size=400))
def test_no_os_release_ends_inspection(content: bytes) -> None:
    findings = Findings("x")
    tree = guest_tree({"etc/os-release": content, "etc/debian_version": content})
    release = find_release(tree, findings)
    assert release.distro in {"debian", ""} or release.product_name


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (b'"a b"', b"a b"),
        (b"'a $b'", b"a $b"),
        (rb'"a\"b\$c\\d"', rb'a"b$c\d'),
        (b"plain", b"plain"),
        (b'"', b'"'),
        (b"\"mixed'", b"\"mixed'"),
    ],
)
def test_shell_unquote(raw: bytes, plain: bytes) -> None:
    assert shell_unquote(raw) == plain
