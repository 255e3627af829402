"""Files of a guest that fulfil conditions: names, kinds, owners, permissions, times, content."""

from __future__ import annotations

import re
import stat as _stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from imgtools.errors import GuestOperationError, ImgtoolsError, UsageError
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree
from imgtools.model.files import Stat
from imgtools.workflow.files import for_each, guest_tree
from imgtools.workflow.members import Member, members, too_deep
from imgtools.workflow.owners import GROUPS, USERS, names_by_id
from imgtools.workflow.selection import DiskArguments, run_selected, select_one

CHUNK = 1 << 20
MAX_LINE = 1 << 16  # a match across a longer stretch without a newline may be missed
SHOWN = 200
CAPABILITY = b"security.capability"
DAY = 86400 * 10**9

Compare = Literal["more", "less", "exactly"]
PermissionKind = Literal["exactly", "all", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a file must be; every condition given must hold.

    ``names`` are patterns for the last component (one must fit), ``path`` for the whole path.
    ``kinds`` are libguestfs's letters.  ``sizes`` (of regular files, bytes) and ``ages`` (days,
    as find's -mtime) are comparisons; ``permissions`` are bits of which exactly these, all or
    any must be set.  ``newer`` and ``older`` are nanoseconds.  ``owner`` and ``group`` are a
    name of the guest's or a number.  ``scan`` bounds the bytes read of each file.
    """

    names: tuple[re.Pattern[bytes], ...] = ()
    path: re.Pattern[bytes] | None = None
    kinds: frozenset[str] = frozenset()
    sizes: tuple[tuple[Compare, int], ...] = ()
    owner: str | None = None
    group: str | None = None
    permissions: tuple[tuple[PermissionKind, int], ...] = ()
    world_writable: bool = False
    capabilities: bool = False
    newer: int | None = None
    older: int | None = None
    ages: tuple[tuple[Compare, int], ...] = ()
    now: int = 0
    content: re.Pattern[bytes] | None = None
    scan: int = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A line that the content was searched for: its number from 1, and its beginning."""

    line: int
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that fulfils the conditions; ``owner`` and ``group`` are empty without a name."""

    path: bytes
    stat: Stat
    device: str
    owner: str = ""
    group: str = ""
    target: bytes | None = None
    match: Match | None = None


class Sink(Protocol):
    """Where what is found goes.  With *auto* the search may start again."""

    def restart(self) -> None:
        """Forget everything: the search begins."""

    def found(self, found: Found) -> None:
        """One file."""


@dataclass(slots=True)
class Searched:
    """How a search ended; ``limited`` when it stopped because enough was found."""

    count: int = 0
    limited: bool = False
    failures: tuple[ImgtoolsError, ...] = ()


def search(
    arguments: DiskArguments,
    tops: Sequence[bytes],
    criteria: Criteria,
    sink: Sink,
    *,
    one_filesystem: bool = False,
    limit: int | None = None,
    mounts: Sequence[MountRequest] = (),
) -> Outcome[Searched]:
    """Search at and below each of ``tops``, in order, and give what fits to ``sink``.

    With ``one_filesystem`` a top's other mounts are left out; after ``limit`` files it stops.
    A file or folder that cannot be read stops no other.  Raises UsageError for an owner that
    the guest does not know.
    """
    selection = select_one(arguments)

    def task(session: Session) -> Searched:
        sink.restart()
        tree = guest_tree(session, mounts)
        return _Search(tree, criteria, sink, one_filesystem, limit).run(tops)

    return run_selected(task, selection, arguments)


class _Enough(Exception):  # noqa: N818 (no error: the search is over)
    pass


class _Search:
    def __init__(
        self,
        tree: GuestTree,
        criteria: Criteria,
        sink: Sink,
        one_filesystem: bool,
        limit: int | None,
    ) -> None:
        self._tree = tree
        self._criteria = criteria
        self._sink = sink
        self._one_filesystem = one_filesystem
        self._limit = limit
        self._users = names_by_id(tree, USERS)
        self._groups = names_by_id(tree, GROUPS)
        self._uid = _number(criteria.owner, self._users, "owner")
        self._gid = _number(criteria.group, self._groups, "group")
        self._failures: list[ImgtoolsError] = []
        self._result = Searched()

    def run(self, tops: Sequence[bytes]) -> Searched:
        try:
            failures = for_each(tops, self._below)
        except _Enough:
            self._result.limited = True
            failures = []
        self._result.failures = (*failures, *self._failures)
        return self._result

    def _below(self, top: bytes) -> None:
        home = self._tree.device_of(top)
        for member in members(self._tree, top, cut=self._cut):
            mount = self._tree.mount_of(member.guest_path)
            if self._one_filesystem and mount.device != home:
                continue
            if self._metadata_fit(member):
                self._content_fits(member, mount.device)

    def _cut(self, path: bytes) -> None:
        self._failures.append(too_deep(path))

    def _metadata_fit(self, member: Member) -> bool:
        wanted, found = self._criteria, member.stat
        name = member.guest_path.rpartition(b"/")[2]
        return (
            (not wanted.names or any(one.match(name) for one in wanted.names))
            and (wanted.path is None or wanted.path.search(member.guest_path) is not None)
            and (not wanted.kinds or found.kind in wanted.kinds)
            and (self._uid is None or found.uid == self._uid)
            and (self._gid is None or found.gid == self._gid)
            and _size_fits(wanted, found)
            and _time_fits(wanted, found)
            and _mode_fits(wanted, found)
            and (not wanted.capabilities or self._has_capability(member))
        )

    def _has_capability(self, member: Member) -> bool:
        regular = _stat.S_ISREG(member.stat.mode)
        return regular and CAPABILITY in self._tree.getxattrs(member.guest_path)

    def _content_fits(self, member: Member, device: str) -> None:
        match = None
        if self._criteria.content is not None:
            if not _stat.S_ISREG(member.stat.mode):
                return
            try:
                match = self._scan(member.guest_path, self._criteria.content)
            except GuestOperationError as error:
                self._failures.append(error)
            if match is None:
                return
        if self._limit is not None and self._result.count >= self._limit:
            raise _Enough
        self._result.count += 1
        self._sink.found(
            Found(
                path=member.guest_path,
                stat=member.stat,
                device=device,
                owner=_text(self._users.get(member.stat.uid)),
                group=_text(self._groups.get(member.stat.gid)),
                target=member.target,
                match=match,
            )
        )

    def _scan(self, path: bytes, pattern: re.Pattern[bytes]) -> Match | None:
        """The first line that matches, in the part of the file that is read."""
        line = 1
        for piece, overlap in self._pieces(path):
            hit = pattern.search(piece)
            if hit is not None:
                start = piece.rfind(b"\n", 0, hit.start()) + 1
                end = piece.find(b"\n", hit.start())
                text = piece[start : end if end >= 0 else len(piece)]
                return Match(line=line + piece.count(b"\n", 0, hit.start()), text=text[:SHOWN])
            line += piece.count(b"\n", 0, len(piece) - overlap)
        return None

    def _pieces(self, path: bytes) -> Iterator[tuple[bytes, int]]:
        """The content in pieces of whole lines, and how much of each the next one repeats."""
        rest = b""
        left = self._criteria.scan
        with self._tree.open(path) as stream:
            while left > 0 and (chunk := stream.read(min(CHUNK, left))):
                left -= len(chunk)
                data = rest + chunk
                cut = data.rfind(b"\n") + 1
                if len(data) - cut > MAX_LINE:  # no text: cut anywhere, and look at the seam twice
                    rest = data[-MAX_LINE:]
                    yield data, len(rest)
                else:
                    rest = data[cut:]
                    yield data[:cut], 0
        yield rest, 0


def _number(text: str | None, names: dict[int, bytes], what: str) -> int | None:
    if text is None:
        return None
    if text.isdecimal() and len(text) < 11:
        return int(text)
    for number, name in names.items():
        if _text(name) == text:
            return number
    raise UsageError(f"--{what} {text}: the guest knows no such name", hint="give a number")


def _text(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", errors="surrogateescape")


def _compare(value: int, how: Compare, limit: int) -> bool:
    if how == "more":
        return value > limit
    return value < limit if how == "less" else value == limit


def _size_fits(wanted: Criteria, found: Stat) -> bool:
    if not wanted.sizes:
        return True
    return _stat.S_ISREG(found.mode) and all(
        _compare(found.size, how, limit) for how, limit in wanted.sizes
    )


def _time_fits(wanted: Criteria, found: Stat) -> bool:
    days = (wanted.now - found.mtime_ns) // DAY
    return (
        (wanted.newer is None or found.mtime_ns > wanted.newer)
        and (wanted.older is None or found.mtime_ns < wanted.older)
        and all(_compare(days, how, limit) for how, limit in wanted.ages)
    )


def _mode_fits(wanted: Criteria, found: Stat) -> bool:
    bits = _stat.S_IMODE(found.mode)
    for how, mode in wanted.permissions:
        if how == "exactly" and bits != mode:
            return False
        if how == "all" and bits & mode != mode:
            return False
        if how == "any" and mode and not bits & mode:
            return False
    if not wanted.world_writable:
        return True
    if _stat.S_ISDIR(found.mode):
        return bits & _stat.S_IWOTH != 0 and not bits & _stat.S_ISVTX  # /tmp is meant to be
    return _stat.S_ISREG(found.mode) and bits & _stat.S_IWOTH != 0
