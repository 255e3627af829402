"""What must not come into a template while programs of the guest run: IDs and seeds.

Programs like systemd's postinst write a machine ID where there is none, and virt-customize even
does so itself; all clones would share it (RHBZ#1557042).  So what was unset before a program ran
is unset after it.  An ID that was there, of a machine that is no template, is left alone.
"""

from __future__ import annotations

import stat as _stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from imgtools.errors import GuestOperationError
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles

MACHINE_IDS = (b"/etc/machine-id", b"/var/lib/dbus/machine-id", b"/var/lib/zypp/AnonymousUniqueId")
SEEDS = (
    b"/var/lib/systemd/random-seed",
    b"/var/lib/random-seed",
    b"/var/lib/urandom/random-seed",
    b"/var/lib/misc/random-seed",
    b"/boot/loader/random-seed",
    b"/boot/efi/loader/random-seed",
    b"/efi/loader/random-seed",
)
# machine-id(5): no ID, of a machine that has not been booted.
_UNSET = (b"", b"uninitialized", b"uninitialized\n")
_LIMIT = 1 << 16


@contextmanager
def afterwards(act: Callable[[], None]) -> Iterator[None]:
    """Do ``act`` at the end, also when a step failed, since whoever ran it may go on.

    Not after anything else: then the appliance has gone, or is to go.
    """
    try:
        yield
    except GuestOperationError:
        act()
        raise
    act()


@contextmanager
def unset_ids_stay_unset(guest: GuestFiles) -> Iterator[None]:
    """Put back machine IDs and seeds that are unset now, if what runs meanwhile sets them."""
    before = {path: _content(guest, path) for path in (*MACHINE_IDS, *SEEDS)}
    with afterwards(lambda: _unset(guest, before)):
        yield


def _unset(guest: GuestFiles, before: Mapping[bytes, bytes | None]) -> None:
    for path, content in before.items():
        if content is not None and content not in _UNSET:
            continue
        if _content(guest, path) == content or not _is_plain(guest, path):
            continue
        if content is None:
            guest.remove(path)
        else:
            guest.create(path, [content])


def _content(tree: GuestTree, path: bytes) -> bytes | None:
    """What is in a file; None where there is none, or something that is no such file."""
    try:
        return tree.read(path, limit=_LIMIT)
    except GuestOperationError:
        return None


def _is_plain(guest: GuestFiles, path: bytes) -> bool:
    found = guest.try_lstat(path)
    return found is not None and _stat.S_ISREG(found.mode)
