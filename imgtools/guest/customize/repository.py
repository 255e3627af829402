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
from imgtools.guest.customize.package_commands import APT, DNF, YUM, ZYPPER_ENDS, Task
from imgtools.guest.writing import GuestFiles

# What the files of a manager are called, and how one says it.
_KINDS = {"apt": ".deb", "dnf": ".rpm", "yum": ".rpm", "zypper": ".rpm", "pacman": ".pkg.tar"}
_FORMS = {
    ".deb": re.compile(r".+\.deb"),
    ".rpm": re.compile(r".+(?<!\.src)\.rpm"),
    ".pkg.tar": re.compile(r".+\.pkg\.tar(\.(gz|bz2|xz|zst|lzo|lrz|lz4|lz|Z))?"),
}

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

# The main configuration may hold repositories, too: all but ours are off, in this order.
_DNF = """
mkdir {folder}/repos
{index}
{manager} --setopt=reposdir={folder}/repos --setopt=cachedir={folder}/cache \
  --disablerepo='*' {enable} --nogpgcheck {words}
"""
_INDEX = """printf '%s\\n' '[imgtools]' name=imgtools baseurl=file://{folder}/packages \
  enabled=1 gpgcheck=0 > {folder}/repos/imgtools.repo"""

# --plus-repo would leave what it read of ours in the guest's caches.
_ZYPPER = """
mkdir {folder}/repos
printf '%s\\n' '[imgtools]' name=imgtools baseurl=dir://{folder}/packages enabled=1 \
  autorefresh=1 gpgcheck=0 {kind} > {folder}/repos/imgtools.repo
zypper -n --no-gpg-checks --reposd-dir {folder}/repos --cache-dir {folder}/cache {words} {ends}
"""

# The database of what is installed is the guest's; those of repositories lie beside it.  Nothing
# is downloaded, so no other user has to: DownloadUser of pacman 7, which wants Landlock.
_PACMAN = """
cd {folder}/packages
repo-add -q -p imgtools.db.tar.gz *.pkg.tar* > {folder}/log 2>&1 || {{ cat {folder}/log; exit 1; }}
cd /
state=$(pacman-conf DBPath)
mkdir -p "$state/local" {folder}/db {folder}/cache
ln -s "$(realpath "$state/local")" {folder}/db/local
pacman-conf | sed \
  '/^\\[options\\]/!{{/^\\[/,$d}}; /^\\(DBPath\\|CacheDir\\|DownloadUser\\) /d' \
  > {folder}/pacman.conf
printf '%s\\n' '[imgtools]' 'SigLevel = Never' 'Server = file://{folder}/packages' \
  >> {folder}/pacman.conf
pacman --config {folder}/pacman.conf --dbpath {folder}/db --cachedir {folder}/cache \
  --noconfirm {words}
"""


def check_folder(word: str) -> Path:
    """A folder that may be one of packages.  Raises UsageError."""
    path = Path(word)
    if not path.is_dir():
        raise UsageError(f"{word}: no such folder on this host")
    if not any(form.fullmatch(found.name) for found in _files(path) for form in _FORMS.values()):
        raise UsageError(f"{word}: holds no .deb, .rpm or .pkg.tar files")
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def packages_in(folder: Path, manager: str) -> list[Path]:
    """The package files for a manager, at any depth."""
    form = _FORMS[_KINDS[manager]]
    return [path for path in _files(folder) if form.fullmatch(path.name)]


def check_kind(folder: Path, manager: str, what: str) -> None:
    """Raise GuestOperationError if the folder is nothing for this package manager."""
    if manager not in _KINDS:
        raise GuestOperationError(
            f"{what}: a folder of packages works with {', '.join(_KINDS)}, not with {manager}",
            hint=f"bring them in with --copy-in, and let --run-command install them by {manager}",
        )
    if not packages_in(folder, manager):
        raise GuestOperationError(
            f"{what}: {folder} holds no {_KINDS[manager]} files for the guest"
        )


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
    text = _script(where, folder, manager, task, names)
    packages = work + b"/packages"
    if _has_index(folder, manager):
        _bring(guest, [folder.resolve()], work)
        guest.rename(work + b"/" + os.fsencode(folder.resolve().name), packages)
    else:
        guest.mkdir(packages, 0o755)
        _bring(guest, [path.resolve() for path in packages_in(folder, manager)], packages)
    return f"set -e\n{text}".encode(errors="surrogateescape")


def _bring(guest: GuestFiles, sources: Sequence[Path], into: bytes) -> None:
    copy_in(sources, into, owner="0:0", told=lambda _count: None).perform(guest)


def _has_index(folder: Path, manager: str) -> bool:
    return _KINDS[manager] == ".rpm" and (folder / "repodata").is_dir()


def _script(where: str, folder: Path, manager: str, task: Task, names: Sequence[str]) -> str:
    index = _has_index(folder, manager)
    if manager == "apt":
        words = {"install": f"install {shlex.join(names)}", "update": "upgrade"}[task]
        return _APT.format(folder=where, apt=APT, words=words)
    if manager == "zypper":
        words = {"install": f"in -l {shlex.join(names)}", "update": "up -l"}[task]
        kind = "type=rpm-md" if index else "type=plaindir"
        return _ZYPPER.format(folder=where, words=words, kind=kind, ends=ZYPPER_ENDS)
    if manager == "pacman":
        words = {"install": f"-Sy --needed {shlex.join(names)}", "update": "-Syu"}[task]
        return _PACMAN.format(folder=where, words=words)
    if not index:
        names = rpm_files(folder, where, names if task == "install" else None)
    verb = {"install": "install", "update": "upgrade" if manager == "dnf" else "update"}[task]
    return _DNF.format(
        folder=where,
        manager=DNF if manager == "dnf" else YUM,
        index=_INDEX.format(folder=where) if index else "",
        enable="--enablerepo=imgtools" if index else "",
        words=f"{verb} {shlex.join(names)}",
    )


def rpm_files(folder: Path, where: str, names: Sequence[str] | None) -> list[str]:
    """The files of these packages, or of all, in the guest; they are found by the form of their
    names: NAME-VERSION-RELEASE.ARCH.rpm.

    Raises GuestOperationError for a package that is not there, or that is there twice.
    """
    found: dict[str, list[str]] = {}
    for path in packages_in(folder, "dnf"):
        parts = re.fullmatch(r"(.+)-[^-]+-[^-]+\.rpm", path.name)
        found.setdefault(parts[1] if parts else path.stem, []).append(path.name)
    hint = "with an index (createrepo_c FOLDER) the guest looks for what it needs itself"
    chosen = []
    for name in found if names is None else names:
        files = found.get(name, [])
        if not files:
            raise GuestOperationError(f"{folder}: has no package {name}", hint=hint)
        if len(files) > 1:
            raise GuestOperationError(f"{folder}: which of {', '.join(files)}?", hint=hint)
        chosen.append(f"{where}/packages/{files[0]}")
    return chosen
