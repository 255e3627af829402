"""``--timezone``: the zone that /etc/localtime leads to, and the files that name it besides."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.customize.hostname import assign
from imgtools.guest.customize.placing import put_file, put_link
from imgtools.guest.customize.system import find_system, read_text
from imgtools.guest.linux.findings import link_target
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

OPTION = "--timezone"
LOCALTIME = b"/etc/localtime"
ZONES = b"/usr/share/zoneinfo"
_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}\Z")
_MAGIC = b"TZif"  # tzfile(5)
_MAX_NAMES = 5000


def parse(value: str) -> SetTimezone:
    """A name of the zone database, as ``Europe/London``.  Raises UsageError."""
    if len(value) > 100 or not _NAME.match(value):
        raise UsageError(f"{OPTION}: {value[:100]!r} is no time zone", hint="as Europe/London")
    return SetTimezone(zone=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimezone:
    """Set the guest's default time zone."""

    zone: str

    def idle(self, tree: GuestTree) -> bool:
        """True if the link leads there and every file says so."""
        self._require(tree)
        files = self._files(tree)
        return self._linked(tree) and all(read_text(tree, p) == text for p, text in files)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Set the link; edit the files."""
        self._require(guest)
        done = []
        if not self._linked(guest):
            # Relative, as timedatectl makes it: it also leads there when the guest is mounted.
            done += put_link(guest, LOCALTIME, b".." + ZONES + b"/" + self.zone.encode())
        for path, text in self._files(guest):
            done += put_file(guest, path, text)
        return done

    def _linked(self, tree: GuestTree) -> bool:
        target = link_target(tree, LOCALTIME)
        return target in (prefix + ZONES + b"/" + self.zone.encode() for prefix in (b"", b".."))

    def _files(self, tree: GuestTree) -> list[tuple[bytes, bytes]]:
        """Files of older times, where they are there: tools of the distribution believe them."""
        files = []
        if read_text(tree, b"/etc/timezone") is not None:
            files.append((b"/etc/timezone", self.zone.encode() + b"\n"))
        clock = read_text(tree, b"/etc/sysconfig/clock")
        if clock is not None:
            for key in b"ZONE", b"TIMEZONE":
                if re.search(rb"(?m)^" + key + rb"=", clock):
                    clock = assign(clock, key, b'"' + self.zone.encode() + b'"')
            files.append((b"/etc/sysconfig/clock", clock))
        return files

    def _require(self, tree: GuestTree) -> None:
        """Raise GuestOperationError unless the guest knows the zone."""
        find_system(tree, OPTION)
        if not tree.is_dir(ZONES):
            raise GuestOperationError(
                f"{OPTION}: the guest has no time zones", hint="install tzdata in the guest"
            )
        path = ZONES + b"/" + self.zone.encode()
        if tree.is_file(path):
            with tree.open(path) as stream:
                if stream.read(4) == _MAGIC:
                    return
        names = [name for _, name in zip(range(_MAX_NAMES), _zones(tree), strict=False)]
        close = difflib.get_close_matches(self.zone, names, n=3, cutoff=0.6)
        question = f": did you mean {' or '.join(close)}?" if close else ""
        raise GuestOperationError(
            f"{OPTION}: the guest knows no time zone {self.zone}{question}",
            hint=None if close else "a name as Europe/London",
        )


def _zones(tree: GuestTree) -> Iterator[str]:
    for path, _, _ in tree.walk(ZONES):
        name = path.decode(errors="replace").partition("zoneinfo/")[2]
        if name[:1].isupper():
            yield name
