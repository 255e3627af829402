"""Actions on, and looks into, an initramfs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgtools.api.guest import Guest
from imgtools.api.records import Action
from imgtools.errors import (
    DirectError,
    GuestOperationError,
)
from imgtools.guest.linux.initramfs import DamagedInitramfsError, Text, matches
from imgtools.guest.steps import (
    RewriteInitramfs,
)
from imgtools.guest.tree import show


def rewrite_initramfs(guest: Guest, path: bytes, text: Text) -> Iterator[Action]:
    """Replace text in an initramfs, if it names that.  One that no kernel could unpack is left.

    Raises GuestOperationError if it cannot be looked into.
    """
    step = RewriteInitramfs(path=path, text=text)
    try:
        idle = step.idle(guest.tree)
    except DamagedInitramfsError as error:
        guest.warn(f"{show(path)}: {error.message}; it is left as it is")
    except GuestOperationError as error:
        raise GuestOperationError(f"{show(path)}: {error.message}", hint=error.hint) from error
    else:
        if not idle:
            yield Action(verb="edited", path=path, step=step)


def find_in_initramfs(
    guest: Guest, path: bytes, pattern: re.Pattern[bytes], longest: int
) -> set[tuple[bytes, ...]]:
    """The groups of what ``pattern`` matches in the unpacked initramfs ``path``.

    ``longest`` bytes hold a match.  One that cannot be looked into is told as a warning.
    """
    try:
        with guest.tree.open(path) as stream:
            return matches(stream, pattern, longest)
    except DirectError:
        raise
    except GuestOperationError as error:
        guest.warn(f"{show(path)}: {error.message}; it was not looked into")
        return set()
