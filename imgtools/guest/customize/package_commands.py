"""The commands of package managers, as virt-customize runs them (guest_packages.ml of
libguestfs-common), but that none of them asks anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

from imgtools.errors import GuestOperationError
from imgtools.guest.linux.distros import family, package_management
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.release import find_release
from imgtools.guest.tree import GuestTree

Task = Literal["install", "uninstall", "update"]

APT = "apt-get -q -y -o Dpkg::Options::=--force-confnew"
# A name that cannot be found is an error, whatever the guest's configuration says: dnf.conf(5)
# strict; yum.conf(5) skip_missing_names_on_install, of which older versions only say that they
# do not know it.
DNF = "dnf -y --setopt=strict=1"
YUM = "yum -y --setopt=skip_missing_names_on_install=0"
# zypper(8): 102 and 103 are success, after which a running system should be restarted.
ZYPPER_ENDS = "|| { status=$?; [ $status = 102 ] || [ $status = 103 ] || exit $status; }"
_ENDS = ZYPPER_ENDS.replace("{", "{{").replace("}", "}}")
_COMMANDS: dict[str, dict[Task, str]] = {
    "apk": {
        "install": "apk update\napk add {}",
        "uninstall": "apk del {}",
        "update": "apk update\napk upgrade",
    },
    "apt": {
        "install": f"{APT} update\n{APT} install {{}}",
        "uninstall": f"{APT} remove {{}}",
        "update": f"{APT} update\n{APT} upgrade",
    },
    "dnf": {
        "install": f"{DNF} install {{}}",
        "uninstall": "dnf -y --disableplugin=subscription-manager remove {}",
        "update": "dnf -y --best upgrade",
    },
    "pacman": {
        "install": "pacman -Sy --noconfirm --needed {}",
        "uninstall": "pacman -R --noconfirm {}",
        "update": "pacman -Syu --noconfirm",
    },
    "urpmi": {
        "install": "urpmi --auto {}",
        "uninstall": "urpme --auto {}",
        "update": "urpmi --auto --auto-select",
    },
    "xbps": {
        "install": "xbps-install -Sy {}",
        "uninstall": "xbps-remove -y {}",
        "update": "xbps-install -Suy",
    },
    "yum": {
        "install": f"{YUM} install {{}}",
        "uninstall": "yum -y remove {}",
        "update": "yum -y update",
    },
    "zypper": {
        "install": f"zypper -n in -l {{}} {_ENDS}",
        "uninstall": f"zypper -n rm {{}} {_ENDS}",
        "update": f"zypper -n up -l {_ENDS}",
    },
}


def manager_of(tree: GuestTree, what: str) -> str:
    """The guest's package manager, of those that are known here.

    Raises GuestOperationError; ``what`` is the option that needs it.
    """
    release = find_release(tree, Findings("guest"))
    distro = release.final_distro
    major = release.version[0] if release.version else 0
    kin = family(distro, release.id_like)
    has_dnf = tree.is_file(b"/usr/bin/dnf")
    name = package_management(distro, kin, major, has_dnf=has_dnf)
    if name in _COMMANDS:
        return name
    shown = release.pretty_name or distro or "an unknown system"
    why = f"{name} is not supported" if name else "its package manager is not known"
    raise GuestOperationError(
        f"{what}: the guest is {shown}: {why}", hint="--run-command runs any program of the guest"
    )


def script(manager: str, task: Task, names: Sequence[str] = ()) -> bytes:
    """The shell script that does it."""
    text = _COMMANDS[manager][task].format(shlex.join(names))
    return f"set -e\n{text}\n".encode(errors="surrogateescape")
