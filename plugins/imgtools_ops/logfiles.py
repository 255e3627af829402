"""Logs."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, empty_paths, remove_files, remove_paths

LOG = b"/var/log/"
# Other operations': pacct-log empties this one.
OTHERS = b"/var/log/account/"
# utmp(5) and lastlog(8): where there is no file, no login is recorded.
NOT_MADE = frozenset((b"btmp", b"faillog", b"lastlog", b"tallylog", b"wtmp"))
# A file that logrotate and its kin have put away, which no program writes to any more.
ROTATED = re.compile(rb"(\.\d+|-\d{8}(-?\d+)?|\.old)(\.(gz|xz|bz2|zst|lz4))?\Z|\.(gz|xz|bz2|zst)\Z")
# A folder of the journal is called by the machine's ID, with a name behind it for a namespace.
JOURNAL = re.compile(rb"[0-9a-f]{32}(\..+)?\Z")

ELSEWHERE = (
    "/root/anaconda-*.cfg",
    "/root/anaconda-*.log",
    "/root/initial-setup-ks.cfg",
    "/root/install.log",
    "/root/install.log.syslog",
    "/root/original-ks.cfg",
    "/etc/Pegasus/*.cnf",
    "/etc/Pegasus/*.crt",
    "/etc/Pegasus/*.csr",
    "/etc/Pegasus/*.pem",
    "/etc/Pegasus/*.srl",
    "/var/cache/fontconfig/*",
    "/var/cache/gdm/*",
    "/var/lib/AccountsService/users/*",
    "/var/lib/fprint/*",
    "/var/lib/logrotate.status",
    "/var/lib/lastlog/lastlog2.db",
    "/var/lib/logrotate/*",
    "/var/lib/wtmpdb/wtmp.db",
    "/var/named/data/named.run*",
)
CACHES = ("/var/cache/gdm", "/var/cache/man", "/var/lib/fprint")


def _plan(guest: Guest, _: Mapping[str, Any]) -> Iterator[Action]:
    for path in guest.glob("/var/log/journal/*"):
        if JOURNAL.match(path.rpartition(b"/")[2]):
            yield from remove_paths(guest, [path])
    for path, found in guest.files_below("/var/log"):
        if not stat.S_ISREG(found.mode) or path.startswith(OTHERS):
            continue
        act = empty_paths if _must_stay(guest, path) else remove_paths
        yield from act(guest, [path])
    yield from remove_files(guest, *ELSEWHERE)
    yield from remove_paths(guest, (path for path, _ in guest.files_below(*CACHES)))


def _must_stay(guest: Guest, path: bytes) -> bool:
    """True for a file that its program could not make again."""
    folder, _, name = path.rpartition(b"/")
    if ROTATED.search(name):
        return False
    if name in NOT_MADE:
        return True
    found, above = guest.tree.lstat(path), guest.tree.stat(folder)
    if found.uid in (0, above.uid) or above.mode & stat.S_IWOTH:
        return False
    # The owner may come in by the folder's group, as syslog does on Ubuntu.
    return not above.mode & stat.S_IWGRP


operation = Operation(
    name="logfiles",
    heading="Remove logs",
    description="All files below /var/log, the journal, and what installers, display managers and "
    "logrotate left elsewhere. Folders and links stay; files that their program could not make "
    "again, such as wtmp, are emptied.",
    order=95,  # after customize: also what its programs make
    plan=_plan,
)
