"""Which packages supermin copied into an appliance, and whether one of them was upgraded.

supermin builds a new appliance whenever the package database is newer, also when something wholly
unrelated was installed.  A template looks closer where dpkg is at hand: the packages that supermin
starts from with all that they depend on, and their versions.  Elsewhere any change of the database
counts.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from imgtools.process import run

_DATABASES = (
    "/var/lib/dpkg/status",
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/var/lib/pacman/local",
)
_FORMAT = "${Package}\t${db:Status-Status}\t${Version}\t${Provides}\t${Pre-Depends}, ${Depends}\n"


def database_stat() -> list[str | int]:
    """Path, size and time of the host's package database."""
    for name in _DATABASES:
        try:
            found = Path(name).stat()
        except OSError:
            continue
        return [name, found.st_size, found.st_mtime_ns]
    return ["", -1, -1]


def closure(supermin: Path) -> list[str]:
    """The packages of ``supermin``'s lists and all that they need; empty without dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    needs: dict[str, set[str]] = {}
    providers: dict[str, set[str]] = {}
    for line in _query([]).splitlines():
        name, status, _, provides, depends = line.split("\t")
        if status == "installed":
            needs[name] = _names(depends)
            for virtual in _names(provides):
                providers.setdefault(virtual, set()).add(name)
    todo = {
        word
        for path in supermin.glob("packages*")
        for word in path.read_text(encoding="utf-8").split()
    }
    found: set[str] = set()
    while todo:
        name = todo.pop()
        reals = {name} if name in needs else providers.get(name, set())
        for real in reals - found:
            found.add(real)
            todo |= needs[real]
    return sorted(found)


def digest(names: list[str]) -> str:
    """A digest of the packages' versions now; of nothing that ever repeats without dpkg."""
    if not names:
        return f"{database_stat()}"
    versions = "\n".join(
        "\t".join(line.split("\t")[:3]) for line in sorted(_query(names).splitlines())
    )
    return hashlib.sha256(versions.encode()).hexdigest()


def _query(names: list[str]) -> str:
    done = run(["dpkg-query", "-W", "-f", _FORMAT, *names], check=False)
    return done.stdout.decode(errors="replace")


def _names(field: str) -> set[str]:
    """Names of a relationship field; of alternatives all, as the installed ones are not known."""
    words = (word.strip() for word in re.split(r"[,|]", field))
    return {re.split(r"[ :(]", word)[0] for word in words if word}
