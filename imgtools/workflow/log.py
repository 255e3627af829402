"""The log of a guest: its systemd journal, else the text file that syslog writes."""

from __future__ import annotations

import fnmatch
import heapq
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from imgtools.errors import GuestFileNotFoundError, GuestOperationError, UsageError
from imgtools.guest.linux.journal import JournalDamagedError, JournalEntry, JournalFile
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree, show
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one
from imgtools.workflow.tail import CHUNK, start_of_lines

JOURNALS = b"/var/log/journal"
TEXT_LOGS = (b"/var/log/syslog", b"/var/log/messages")
MAX_FILES = 2000  # journald keeps 100 of each kind
MAX_OPEN = 12  # of a system and its users a few overlap; each costs some 4 MiB
MAX_KEPT = 32 << 20  # bytes of the last entries
MAX_BOOTS = 100_000
_COREDUMP = b"fc2e22bc6ee647b6b90729ab34a250b1"
_UNIT_SUFFIX = re.compile(
    r"\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which entries are wanted; every condition given must hold.

    ``units`` may hold shell patterns; ``priorities`` are syslog's 0 (emerg) to 7 (debug), both
    included; times are microseconds since the epoch; ``boot`` is an id, or a number: 0 the last
    boot in the journal, -1 the one before, 1 the first; ``last`` keeps that many of the end.
    """

    units: tuple[str, ...] = ()
    priorities: tuple[int, int] | None = None
    since: int = 0
    until: int = 1 << 64
    boot: str | None = None
    last: int | None = None

    @property
    def needs_journal(self) -> bool:
        """True if a text log could not answer."""
        return self != LogFilter(last=self.last)


class Sink(Protocol):
    """Where the log goes.  With *auto* it may start again from the beginning."""

    def restart(self) -> None:
        """Forget everything: the log begins."""

    def entry(self, entry: JournalEntry) -> None:
        """One entry of the journal."""

    def text(self, data: bytes) -> None:
        """More of a text log."""


def log(
    arguments: DiskArguments,
    wanted: LogFilter,
    sink: Sink,
    *,
    mounts: Sequence[MountRequest] = (),
) -> Outcome[None]:
    """Give the entries of every journal file to ``sink`` by time, or a text log.

    A damaged file costs the entries after the damage, with a warning.  Raises
    GuestFileNotFoundError when the guest has neither.
    """
    selection = select_one(arguments)

    def task(session: Session) -> None:
        sink.restart()
        tree = guest_tree(session, mounts)
        paths = _journals(session, tree)
        if paths:
            _journal(session, tree, paths, wanted, sink)
        else:
            _text(tree, wanted, sink)

    return run_selected(task, selection, arguments)


def unit_name(text: str) -> str:
    """A unit's full name: without a suffix, a service; a pattern is left as it is."""
    return text if _UNIT_SUFFIX.search(text) or set(text) & set("*?[") else f"{text}.service"


# --- the journal ---------------------------------------------------------------------------------


def _journals(session: Session, tree: GuestTree) -> list[bytes]:
    """Every journal file, the system's and the users', of whatever machine id."""
    folders = [JOURNALS, *(JOURNALS + b"/" + name for name in tree.listdir(JOURNALS))]
    found = [
        folder + b"/" + name
        for folder in folders
        for name in tree.listdir(folder)
        if name.endswith((b".journal", b".journal~")) and tree.is_file(folder + b"/" + name)
    ]
    if len(found) > MAX_FILES:
        session.warn("log.files", f"{len(found)} journal files; the first {MAX_FILES} are read")
    return found[:MAX_FILES]


def _journal(
    session: Session, tree: GuestTree, paths: list[bytes], wanted: LogFilter, sink: Sink
) -> None:
    boot = _boot_id(session, tree, paths, wanted.boot)
    matcher = _Matcher(wanted, boot)
    merged = _merged(session, tree, paths, wanted)
    chosen: Iterator[JournalEntry] = filter(matcher.wants, merged)
    if wanted.last is not None:
        chosen = _last(session, chosen, wanted.last)
    for entry in chosen:
        if entry.incomplete:
            session.warn(
                "log.incomplete",
                "entries lack a field that is too large or compressed by an unknown method",
            )
        sink.entry(entry)


def _last(session: Session, entries: Iterator[JournalEntry], count: int) -> Iterator[JournalEntry]:
    """The last ``count`` entries, fewer if they are more than memory should hold."""
    kept: deque[tuple[int, JournalEntry]] = deque()
    size = 0
    for entry in entries:
        own = sum(len(value) for values in entry.fields.values() for value in values)
        kept.append((own, entry))
        size += own
        while len(kept) > count or size > MAX_KEPT:
            if len(kept) <= count:
                session.warn("log.lines", "the last entries are so large that fewer are shown")
            size -= kept.popleft()[0]
    for _, entry in kept:
        yield entry


def _merged(
    session: Session, tree: GuestTree, paths: list[bytes], wanted: LogFilter
) -> Iterator[JournalEntry]:
    """The entries of all files by time; a file is open only while its time lasts."""
    waiting = deque(sorted(_starts(session, tree, paths)))
    heap: list[tuple[int, int, int, JournalEntry, Iterator[JournalEntry]]] = []
    opened = 0

    def take(number: int, entries: Iterator[JournalEntry]) -> None:
        entry = next(entries, None)
        if entry is not None:
            heapq.heappush(heap, (entry.realtime, entry.seqnum, number, entry, entries))

    while waiting or heap:
        while waiting and len(heap) < MAX_OPEN and (not heap or waiting[0][0] <= heap[0][0]):
            start, path = waiting.popleft()
            if start <= wanted.until:
                opened += 1
                take(opened, _entries(session, tree, path, wanted))
        if heap:
            _, _, number, entry, entries = heapq.heappop(heap)
            yield entry
            take(number, entries)


def _starts(session: Session, tree: GuestTree, paths: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each readable journal file with the time of its first entry."""
    for path in paths:
        try:
            with tree.open(path) as stream:
                file = JournalFile(stream, tree.stat(path).size)
        except (JournalDamagedError, GuestOperationError) as error:
            session.warn("log.damaged", f"{show(path)}: {error}; it is left out")
        else:
            yield file.first_realtime, path


def _entries(
    session: Session, tree: GuestTree, path: bytes, wanted: LogFilter
) -> Iterator[JournalEntry]:
    try:
        with tree.open(path) as stream:
            file = JournalFile(stream, tree.stat(path).size)
            yield from file.entries(since=wanted.since, until=wanted.until)
    except (JournalDamagedError, GuestOperationError) as error:
        # A file that was being written when the guest stopped ends like this as well.
        session.warn("log.damaged", f"{show(path)}: {error}; its later entries are not shown")


def _boot_id(session: Session, tree: GuestTree, paths: list[bytes], text: str | None) -> str | None:
    """The id of the boot asked for.  Raises UsageError for one that the journal does not have."""
    if text is None:
        return None
    plain = text.replace("-", "").lower()
    if re.fullmatch(r"[0-9a-f]{32}", plain):
        return plain
    if not re.fullmatch(r"[+-]?\d{1,6}", text):
        raise UsageError(f"--boot {text}: neither a number nor an id of 32 hexadecimal digits")
    first: dict[str, int] = {}
    for path in paths:
        try:
            with tree.open(path) as stream:
                for boot, realtime in JournalFile(stream, tree.stat(path).size).boots():
                    if boot in first or len(first) < MAX_BOOTS:
                        first[boot] = min(realtime, first.get(boot, realtime))
        except (JournalDamagedError, GuestOperationError) as error:
            session.warn("log.damaged", f"{show(path)}: {error}; its later boots are unknown")
    boots = sorted(first, key=lambda boot: first[boot])
    number = int(text)
    index = number - 1 if number > 0 else len(boots) - 1 + number
    if not 0 <= index < len(boots):
        raise UsageError(f"--boot {text}: the journal has {len(boots)} boots")
    return boots[index]


class _Matcher:
    def __init__(self, wanted: LogFilter, boot: str | None) -> None:
        self._boot = boot
        self._priorities = wanted.priorities
        names = [fnmatch.translate(unit_name(unit)) for unit in wanted.units]
        self._units = [re.compile(name) for name in names]

    def wants(self, entry: JournalEntry) -> bool:
        """True if every condition holds."""
        if self._boot is not None and entry.boot_id != self._boot:
            return False
        if self._priorities is not None:
            low, high = self._priorities
            text = entry.get(b"PRIORITY") or b""
            if not (text.isdigit() and len(text) == 1 and low <= int(text) <= high):
                return False
        return not self._units or self._of_unit(entry)

    def _of_unit(self, entry: JournalEntry) -> bool:
        """As journalctl -u: what the unit wrote, and what systemd or coredump wrote of it."""
        names = [entry.get(b"_SYSTEMD_UNIT")]
        if entry.get(b"_PID") == b"1":
            names.append(entry.get(b"UNIT"))
        if entry.get(b"_UID") == b"0":
            names.append(entry.get(b"OBJECT_SYSTEMD_UNIT"))
            if entry.get(b"MESSAGE_ID") == _COREDUMP:
                names.append(entry.get(b"COREDUMP_UNIT"))
        texts = [show(name) for name in names if name is not None]
        return any(pattern.match(text) for pattern in self._units for text in texts)


# --- text ----------------------------------------------------------------------------------------


def _text(tree: GuestTree, wanted: LogFilter, sink: Sink) -> None:
    path = next((path for path in TEXT_LOGS if tree.is_file(path)), None)
    if path is None:
        raise GuestFileNotFoundError(
            "no journal and no syslog in /var/log",
            hint="imgtools ls -lR -a IMAGE /var/log shows what is there",
        )
    if wanted.needs_journal:
        raise GuestOperationError(
            f"{show(path)} is a text: --unit, --priority, --boot and times need a journal",
            hint=f"imgtools cat -a IMAGE {show(path)} | grep",
        )
    with tree.open(path) as stream:
        stream.seek(0 if wanted.last is None else start_of_lines(stream, wanted.last))
        while chunk := stream.read(CHUNK):
            sink.text(chunk)
