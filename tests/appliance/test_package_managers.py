"""The real dnf, zypper and pacman: what customize installs with them, and what is left of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from tests.appliance.scratch import overlay_of, read, state
from tests.cli import Result, imgtools

pytestmark = pytest.mark.appliance

FEDORA = 'ID=fedora\nVERSION_ID=39\nPRETTY_NAME="Fedora Linux 39"\n'
SUSE = 'ID=opensuse-leap\nVERSION_ID="15.5"\nPRETTY_NAME="openSUSE Leap 15.5"\n'
ARCH = 'ID=arch\nPRETTY_NAME="Arch Linux"\n'
FAILING = "echo the reason\nexit 3\n"

# Nothing may read these: they are the guest's own, and lead nowhere.
NOWHERE = "[nowhere]\nname=nowhere\nbaseurl=http://127.0.0.1:1/\nenabled=1\nskip_if_unavailable=0\n"
OWN = {
    "/etc/dnf/dnf.conf": f"[main]\nstrict=0\n{NOWHERE}",
    "/etc/yum.repos.d/own.repo": NOWHERE.replace("nowhere", "own"),
    "/etc/zypp/repos.d/own.repo": f"{NOWHERE}autorefresh=1\n",
    "/etc/pacman.conf": "[options]\nArchitecture = auto\nCheckSpace\nHoldPkg = base\n"
    "[nowhere]\nServer = http://127.0.0.1:1/\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package with /usr/bin/NAME, which says its version."""

    name: str
    version: str = "1.0"
    needs: str = ""
    after: str = ""  # a script that runs when it was installed

    @property
    def program(self) -> str:
        return f"#!/bin/sh\necho {self.name} {self.version}\n"


OLD = (
    Package(name="hello", needs="hello-library"),
    Package(name="hello-library"),
    Package(name="never-asked-for"),
    Package(name="bad", after=FAILING),
)
NEW = (Package(name="hello", version="1.10", needs="hello-library"), Package(name="not-there"))


def make_rpms(folder: Path, packages: tuple[Package, ...]) -> None:
    """Write them with rpmbuild."""
    work = folder.with_name(f"{folder.name}-build")
    (work / "specs").mkdir(parents=True)
    for one in packages:
        (work / "specs" / one.name).write_text(one.program)
        spec = [f"Name: {one.name}", f"Version: {one.version}", "Release: 1", "Summary: A test"]
        spec += [
            "License: MIT",
            "BuildArch: noarch",
            *([f"Requires: {one.needs}"] * bool(one.needs)),
        ]
        spec += ["%description", "A test", *([f"%post\n{one.after}"] * bool(one.after))]
        spec += [
            "%install",
            f"install -D {work}/specs/{one.name} %{{buildroot}}/usr/bin/{one.name}",
        ]
        spec += ["%files", f"/usr/bin/{one.name}"]
        (work / "specs" / f"{one.name}.spec").write_text("\n".join(spec) + "\n")
    command: list[str | Path] = ["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {work}"]
    command += ["--define", f"_rpmdir {folder}", "--define", f"_tmppath {work}"]
    specs = sorted(work.glob("specs/*.spec"))
    subprocess.run([*command, *specs], check=True, capture_output=True)


def make_pacman(folder: Path, packages: tuple[Package, ...]) -> None:
    """Write them as makepkg would."""
    folder.mkdir()
    for one in packages:
        info = f"pkgname = {one.name}\npkgver = {one.version}-1\npkgdesc = a test\nsize = 40\n"
        info += "builddate = 1700000000\npackager = Nobody\narch = any\nlicense = MIT\n"
        info += f"depend = {one.needs}\n" if one.needs else ""
        files = {".PKGINFO": info, f"usr/bin/{one.name}": one.program}
        if one.after:
            files[".INSTALL"] = f"post_install() {{\n{one.after}}}\n".replace("exit", "return")
        path = folder / f"{one.name}-{one.version}-1-any.pkg.tar.xz"
        with tarfile.open(path, "w:xz") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.mode, member.size = 0o755, len(text)
                tar.addfile(member, BytesIO(text.encode()))


def index(folder: Path) -> Path:
    """Give a folder of RPMs its repodata."""
    subprocess.run(["createrepo_c", "-q", folder], check=True)
    return folder


@pytest.fixture
def guest(image: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """``guest(os_release)``: the guest with all of them as one that has only one, and sources."""

    def make(release: str) -> Path:
        (tmp_path / "disks").mkdir()
        disk = overlay_of(image("managers"), tmp_path / "disks/disk.qcow2")
        own = [word for path, text in OWN.items() for word in ("--write", f"{path}:{text}")]
        folders = ("--mkdir", "/etc/yum.repos.d", "--mkdir", "/etc/zypp/repos.d")
        customize(disk, *folders, *own, "--write", f"/usr/lib/os-release:{release}")
        return disk

    return make


def customize(disk: Path, *words: str | Path) -> Result:
    """A run that must succeed."""
    done = imgtools("customize", "-a", disk, *words)
    assert done.code == 0, done.stderr
    return done


def changed(disk: Path, *words: str | Path) -> set[str]:
    """The paths that such a run changed, without the managers' logs and databases."""
    done = json.loads(customize(disk, "--json", *words).stdout)["result"]
    records = ("/var/log/", "/usr/lib/sysimage/rpm/rpmdb.", "/var/lib/pacman/local/")
    records += ("/var/lib/dnf/history.", "/var/cache/ldconfig/", "/var/cache/zypp/solv/@System")
    # of --uninstall, which is for the guest's own configuration
    records += ("/var/cache/dnf/tempfiles.json", "/var/cache/dnf/expired_repos.json")
    paths = {one["path"] for one in done["changes"]}
    return {path for path in paths if not path.startswith(records)} - {
        "/var/lib/zypp",
        "/var/lib/zypp/AutoInstalled",
        "/var/log",
        "/etc/ld.so.cache",
        "/var/cache/dnf",
        "/var/cache/zypp",
        "/var/cache/zypp/solv",
    }


def applications(disk: Path) -> set[str]:
    """What the inspection finds installed, read from the database by imgtools."""
    done = imgtools("inspect", "--json", "-a", disk)
    found = json.loads(done.stdout)["result"][0]["applications"]
    return {f"{one['name']} {one['version']}" for one in found}


MANAGERS = {
    "dnf": (FEDORA, make_rpms, "rpm -qa --qf '%{name} %{version}\\n'"),
    "zypper": (SUSE, make_rpms, "rpm -qa --qf '%{name} %{version}\\n'"),
    "pacman": (ARCH, make_pacman, "pacman -Q | sed 's/-1$//'"),
}


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_folder_of_packages_and_nothing_else(
    manager: str, guest: Callable[[str], Path], tmp_path: Path
) -> None:
    release, make, query = MANAGERS[manager]
    disk, old, new = guest(release), tmp_path / "old", tmp_path / "new"
    make(old, OLD)
    make(new, NEW)
    if manager == "dnf":
        index(old)
    # what it needs comes with it; what was not asked for stays away, and so does what is ours
    said = ("--run-command", f"hello > /root/said; {query} > /root/all")
    paths = changed(disk, "--repository", old, "--install", "hello", *said)
    assert paths == {"/usr/bin/hello", "/usr/bin/hello-library", "/root/said", "/root/all"}
    assert read(disk, "/root/said") == b"hello 1.0\n"
    everything = set(read(disk, "/root/all").decode().splitlines())
    assert {"hello 1.0", "hello-library 1.0"} <= everything
    assert applications(disk) == everything

    # all or nothing
    before = state(disk)
    if manager != "pacman":  # which says it as plainly as zypper does
        done = imgtools(
            "customize", "-q", "-a", disk, "--repository", old, "--install", "hello,none"
        )
        assert (done.code, state(disk)) == (6, before)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("imgtools: --install: install hello,none: exit status "), last
        assert "none" in last.partition(": exit status ")[2]
    done = imgtools("customize", "-q", "-a", disk, "--repository", old, "--install", "bad")
    assert (done.code, state(disk)) == (6, before), done.stderr
    assert "\n  the reason\n" in done.stderr
    assert ": install bad: a script of a package failed: " in done.stderr.splitlines()[-1]

    # the newer one, and away with it
    paths = changed(disk, "--repository", new, "--update", *said, "--uninstall", "hello")
    assert read(disk, "/root/said") == b"hello 1.10\n"
    # dnf also removes what nothing needs any more
    library = {"hello-library 1.0"} if manager == "dnf" else set()
    programs = {f"/usr/bin/{one.partition(' ')[0]}" for one in {"hello 1.0", *library}}
    assert paths == {"/root/said", "/root/all", *programs}
    assert applications(disk) == everything - {"hello 1.0"} - library
    for path, text in OWN.items():
        assert read(disk, path).decode() == text


def test_sysprep_after_dnf_and_zypper_have_run(
    guest: Callable[[str], Path], tmp_path: Path
) -> None:
    disk, folder = guest(FEDORA), tmp_path / "packages"
    make_rpms(folder, OLD)
    index(folder)
    source = "[own]\nname=own\nbaseurl=file:///srv/packages\nenabled=1\ngpgcheck=0\n"
    customize(
        *(
            disk,
            "--copy-in",
            f"{folder}:/srv",
            "--write",
            "/etc/dnf/dnf.conf:[main]\nkeepcache=1\n",
        ),
        *("--write", f"/etc/yum.repos.d/own.repo:{source}"),
        *("--write", f"/etc/zypp/repos.d/own.repo:{source}autorefresh=1\nkeeppackages=1\n"),
        *("--run-command", "dnf -y install hello && zypper -n --no-gpg-checks in never-asked-for"),
        # an ID that the guest has already is its own
        *("--write", "/var/lib/zypp/AnonymousUniqueId:1234"),
    )
    caches = ("/var/cache/dnf", "/var/cache/zypp")
    for cache in caches:
        assert imgtools("ls", "-a", disk, cache).lines, cache
    installed = applications(disk)
    operations = "package-manager-cache,rpm-db,suse-registration"
    done = imgtools("sysprep", "-a", disk, "--operations", operations)
    assert done.code == 0, done.stderr
    for cache in caches:
        assert imgtools("ls", "-a", disk, cache).lines == [], cache
    assert imgtools("ls", "-a", disk, "/var/lib/zypp/AnonymousUniqueId").code == 6
    assert applications(disk) == installed
    # both go on as if nothing had happened
    again = "rpm --verifydb && dnf -y remove hello && zypper -n --no-gpg-checks in hello"
    customize(disk, "--run-command", f"{again} && hello > /root/said")
    assert read(disk, "/root/said") == b"hello 1.0\n"
    assert applications(disk) == installed
