"""A guest as an operation sees it."""

from __future__ import annotations

import os
import stat as _stat
from collections import Counter
from collections.abc import Callable, Iterator

from imgtools.api.records import Home
from imgtools.errors import (
    GuestFileNotFoundError,
    GuestFileTooLargeError,
    GuestOperationError,
)
from imgtools.guest.globbing import glob
from imgtools.guest.linux.boot import ESP_MBR_ID, ESP_TYPE
from imgtools.guest.linux.distros import family
from imgtools.guest.linux.findings import Findings
from imgtools.guest.linux.release import Release, find_release
from imgtools.guest.tree import GuestTree
from imgtools.model.files import Stat
from imgtools.model.storage import Storage

MAX_TEXT = 16 << 20
"""Bytes of the largest file that an operation reads."""


class Guest:
    """A guest as an operation sees it: read-only, links resolved inside the guest.

    ``warnings`` are what `warn` was told.
    """

    def __init__(self, tree: GuestTree) -> None:
        self.tree = tree
        self.warnings: list[str] = []
        self.release: Release = find_release(tree, Findings("guest"))

    @property
    def family(self) -> str:
        """``debian``, ``fedora``, ``rhel``, ``suse``, ``arch`` …, or empty."""
        return family(self.release.final_distro, self.release.id_like)

    @property
    def storage(self) -> Storage:
        """What is on all disks: ``filesystems``, ``luks``, ``pvs``, ``vgs``, ``partitions`` …"""
        return self.tree.storage()

    def is_mounted(self, device: str) -> bool:
        """True if the guest mounts the filesystem on ``device``, or a subvolume of it."""
        below = f"btrfsvol:{device}/"
        return any(
            mount.device == device or mount.device.startswith(below) for mount in self.tree.mounts
        )

    def unmounted_esps(self) -> list[str]:
        """EFI system partitions (UEFI 2.10, 5.3.3) of which the guest's fstab says nothing."""
        found = {one.device for one in self.storage.filesystems}
        return [
            one.name
            for one in self.storage.partitions
            if (one.gpt_type == ESP_TYPE or one.mbr_id == ESP_MBR_ID)
            and one.name in found
            and not self.is_mounted(one.name)
        ]

    def warn(self, text: str) -> None:
        """Tell the user, without ending the run."""
        if text not in self.warnings:
            self.warnings.append(text)

    def glob(self, *patterns: str) -> Iterator[bytes]:
        """The paths that shell patterns match (``*``, ``?``, ``[…]``; ``*`` also hidden names).

        Links in the folders on the way are followed; each path comes once, in the order of its
        pattern.  Raises GuestOperationError for more than 200 000 matches.
        """
        yield from glob(self.tree, *map(os.fsencode, patterns))

    def homes(self) -> list[Home]:
        """The home directories in /etc/passwd that are there, each path once."""
        homes: dict[bytes, Home] = {}
        for line in (self.read("/etc/passwd") or b"").splitlines():
            fields = line.split(b":")
            if len(fields) != 7 or not fields[2].isdigit() or fields[5] in (b"", b"/"):
                continue
            path = b"/" + fields[5].strip(b"/")
            if path not in homes and self.tree.is_dir(path):
                homes[path] = Home(name=os.fsdecode(fields[0]), uid=int(fields[2]), path=path)
        return list(homes.values())

    def in_homes(self, *patterns: str) -> Iterator[bytes]:
        """What patterns match below every home directory; a home's own name is no pattern.

        Homes are those of /etc/passwd, and the folders in /home, which may be those of accounts
        that a directory service knows.
        """
        homes = dict.fromkeys(home.path for home in self.homes())
        homes |= dict.fromkeys(path for path in self.glob("/home/*") if self.tree.is_dir(path))
        for home in homes:
            yield from glob(self.tree, *map(os.fsencode, patterns), below=home)

    def files_below(
        self, *patterns: str, enter: Callable[[bytes], bool] | None = None
    ) -> Iterator[tuple[bytes, Stat]]:
        """All but the folders in the folders that patterns match, at any depth, with its lstat.

        ``enter`` says which folders below them are gone into, else all.
        """
        for top in self.glob(*patterns):
            if self.tree.is_dir(top):
                for path, _, found in self.tree.walk(top, enter=enter):
                    if not _stat.S_ISDIR(found.mode):
                        yield path, found

    def read(self, path: str | bytes) -> bytes | None:
        """The content of a file; None where there is none.  Raises for one above `MAX_TEXT`."""
        try:
            return self.tree.read(os.fsencode(path), limit=MAX_TEXT)
        except GuestFileNotFoundError:
            return None
        except GuestFileTooLargeError as error:
            raise GuestOperationError(f"{error.message} (too large for an operation)") from error

    def size(self, path: bytes) -> int:
        """Bytes on the disk of a file or of everything below a directory.

        Of a file with several names they count where all of its names are below.
        """
        found = self.tree.lstat(path)
        total = size_of(found)
        if not _stat.S_ISDIR(found.mode):
            return total
        names: Counter[tuple[str, int]] = Counter()
        for below, _, one in self.tree.walk(path):
            total += size_of(one)
            if one.nlink > 1 and not _stat.S_ISDIR(one.mode):
                inode = (self.tree.device_of(below.rpartition(b"/")[0] or b"/"), one.ino)
                names[inode] += 1
                total += one.blocks * 512 if names[inode] == one.nlink else 0
        return total


def size_of(found: Stat) -> int:
    return found.blocks * 512 if found.nlink == 1 or _stat.S_ISDIR(found.mode) else 0
