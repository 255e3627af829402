"""What ls and cat share: the guest's tree, by inspection or by what the user mounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from imgtools.errors import GuestOperationError, ImgtoolsError, NoGuestError, SeveralGuestsError
from imgtools.guest.mounting import MountRequest, mount_requested
from imgtools.guest.opening import Session
from imgtools.guest.tree import GuestTree

T = TypeVar("T")


def guest_tree(session: Session, mounts: Sequence[MountRequest]) -> GuestTree:
    """The tree of ``mounts``, else that of the one operating system on the disks.

    Raises NoGuestError, SeveralGuestsError (which lists the roots), GuestOperationError.
    """
    tree = mount_requested(session, mounts) if mounts else _inspected(session)
    tree.storage = session.engine.storage
    tree.swap_is_clear = session.engine.swap_is_clear
    return tree


def _inspected(session: Session) -> GuestTree:
    from imgtools.guest.roots import open_guest_tree

    try:
        return open_guest_tree(session)
    except SeveralGuestsError:
        raise
    except NoGuestError as error:
        hint = f"{error.hint}; -m DEVICE opens a filesystem without one"
        raise NoGuestError(error.message, hint=hint) from None


def for_each(paths: Sequence[bytes], act: Callable[[bytes], None]) -> list[ImgtoolsError]:
    """Do ``act`` for every path, go on after a failure inside the guest, return the failures."""
    failures: list[ImgtoolsError] = []
    for path in paths:
        try:
            act(path)
        except GuestOperationError as error:
            failures.append(error)
    return failures
