"""A folder of packages of this host, from which the guest's package manager installs offline.

The files are copied into the guest, into a folder of ours that is removed afterwards, and the
manager is told to use nothing else; its own lists, caches and sources stay as they are.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.archives import copy_in
from imgtools.guest.customize.package_commands import APT, Task
from imgtools.guest.writing import GuestFiles

SUFFIXES = {"apt": ".deb", "dnf": ".rpm", "yum": ".rpm", "zypper": ".rpm"}

# apt reads a folder by its index, which dpkg-deb and coreutils, essential in every guest, can make.
_APT = """
cd {folder}/packages
for file in *.deb; do
  dpkg-deb -f "$file"
  printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$file" \
    "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d ' ' -f 1)"
done > Packages
cd /
echo 'deb [trusted=yes] file:{folder}/packages ./' > {folder}/sources.list
mkdir -p {folder}/lists/partial {folder}/archives/partial
apt() {{
  {apt} -o Dir::Etc::sourcelist={folder}/sources.list -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists={folder}/lists -o Dir::Cache::archives={folder}/archives \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}}
apt update
apt {words}
"""

_DNF = """
mkdir {folder}/repos
{index}
{manager} -y --setopt=reposdir={folder}/repos --setopt=cachedir={folder}/cache \
  --nogpgcheck {words}
"""
_INDEX = """printf '%s\\n' '[imgtools]' name=imgtools baseurl=file://{folder}/packages \
  enabled=1 gpgcheck=0 > {folder}/repos/imgtools.repo"""

_ZYPPER = """
zypper -n --no-gpg-checks --disable-repositories --plus-repo dir://{folder}/packages {words}
"""


def check_folder(word: str) -> Path:
    """A folder that may be one of packages.  Raises UsageError."""
    path = Path(word)
    if not path.is_dir():
        raise UsageError(f"{word}: no such folder on this host")
    if not any(found.suffix in (".deb", ".rpm") for found in _files(path)):
        raise UsageError(f"{word}: holds no .deb or .rpm files")
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def check_kind(folder: Path, manager: str, what: str) -> None:
    """Raise GuestOperationError if the folder is nothing for this package manager."""
    suffix = SUFFIXES.get(manager)
    if suffix is None:
        raise GuestOperationError(
            f"{what}: a folder of packages works with {', '.join(SUFFIXES)}, not with {manager}"
        )
    if not any(path.suffix == suffix for path in _files(folder)):
        raise GuestOperationError(f"{what}: {folder} holds no {suffix} files for the guest")


def script(
    guest: GuestFiles,
    work: bytes,
    folder: Path,
    manager: str,
    task: Task,
    names: Sequence[str],
) -> bytes:
    """Bring the packages into the folder ``work`` of the guest; the script that uses them.

    Raises GuestOperationError for a package that is not in a folder without an index.
    """
    where = os.fsdecode(work)
    packages = work + b"/packages"
    if manager != "apt" and (folder / "repodata").is_dir():
        _bring(guest, [folder.resolve()], work)
        guest.rename(work + b"/" + os.fsencode(folder.resolve().name), packages)
    else:
        guest.mkdir(packages, 0o755)
        files = [path for path in _files(folder) if path.suffix == SUFFIXES[manager]]
        _bring(guest, [path.resolve() for path in files], packages)
    text = _script(where, folder, manager, task, names)
    return f"set -e\n{text}".encode(errors="surrogateescape")


def _bring(guest: GuestFiles, sources: Sequence[Path], into: bytes) -> None:
    copy_in(sources, into, owner="0:0", told=lambda _count: None).perform(guest)


def _script(where: str, folder: Path, manager: str, task: Task, names: Sequence[str]) -> str:
    if manager == "apt":
        words = {"install": f"install {shlex.join(names)}", "update": "upgrade"}[task]
        return _APT.format(folder=where, apt=APT, words=words)
    if manager == "zypper":
        words = {"install": f"in -l {shlex.join(names)}", "update": "up -l"}[task]
        return _ZYPPER.format(folder=where, words=words)
    index = ""
    if (folder / "repodata").is_dir():
        index = _INDEX.format(folder=where)
    else:
        names = rpm_files(folder, where, names)
    verb = {"install": "install", "update": "upgrade" if manager == "dnf" else "update"}[task]
    if task == "update" and not index:
        files = (path for path in _files(folder) if path.suffix == ".rpm")
        names = [f"{where}/packages/{path.name}" for path in files]
    words = f"{verb} {shlex.join(names)}"
    return _DNF.format(folder=where, manager=manager, index=index, words=words)


def rpm_files(folder: Path, where: str, names: Sequence[str]) -> list[str]:
    """The files of these packages, by the form of their names: NAME-VERSION-RELEASE.ARCH.rpm."""
    found: dict[str, str] = {}
    for path in _files(folder):
        parts = re.fullmatch(r"(.+)-[^-]+-[^-]+\.rpm", path.name)
        if parts:
            found[parts[1]] = f"{where}/packages/{path.name}"
    missing = [name for name in names if name not in found]
    if missing:
        raise GuestOperationError(
            f"{folder}: has no package {missing[0]}",
            hint="an index (createrepo_c FOLDER) lets the guest look for what others depend on",
        )
    return [found[name] for name in names]
