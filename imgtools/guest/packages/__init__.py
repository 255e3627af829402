"""Package databases: dpkg, rpm (SQLite, ndb, Berkeley DB), pacman, apk.

Charter: one reader per format, each from a `GuestTree` into a bounded `Collection`; damage costs
the packages it hits and is said.  Needs neither engine's libraries.
"""

from __future__ import annotations

from imgtools.guest.packages.apk import read_apk
from imgtools.guest.packages.application import Application, Collection
from imgtools.guest.packages.dpkg import read_dpkg
from imgtools.guest.packages.pacman import read_pacman
from imgtools.guest.packages.rpm import read_rpm
from imgtools.guest.tree import GuestTree

__all__ = ["READERS", "Application", "Collection", "collect_packages"]

READERS = {"deb": read_dpkg, "rpm": read_rpm, "pacman": read_pacman, "apk": read_apk}
"""By libguestfs's name of the package format."""


def collect_packages(tree: GuestTree, package_format: str) -> Collection:
    """The packages of a guest; empty for a format that nobody lists (ebuild, xbps …).

    Raises what opening the database raises, and complains in the collection of what it skipped.
    """
    found = Collection()
    reader = READERS.get(package_format)
    if reader is not None and not reader(tree, found):
        found.complain(f"no {package_format} database")
    return found
