"""Several images held at once while some of them are changed in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgtools.errors import InUseError
from imgtools.image.hold import Hold, hold_for_change, hold_unchanged
from imgtools.process import inheriting


@contextlib.contextmanager
def held(changing: Iterable[Path], unchanged: Iterable[Path] = ()) -> Iterator[list[Hold]]:
    """Hold files until the block ends: those of ``changing`` for us alone, which are yielded.

    A file in both is held for a change, and one that has two names once.  A program that is started
    meanwhile holds them as well: should we be killed, until it has ended.  Raises InUseError naming
    who uses it, ReadOnlyError, ImageNotFoundError.
    """
    with contextlib.ExitStack() as stack:
        seen: set[tuple[int, int]] = set()
        mine, others = [], []
        for path in changing:
            if _first(path, seen):
                hold = hold_for_change(path)
                stack.callback(hold.release)
                hold.take_exclusive()
                mine.append(hold)
        for path in unchanged:
            if _first(path, seen):
                hold = hold_unchanged(path)
                stack.callback(hold.release)
                others.append(hold)
        stack.enter_context(inheriting([hold.fileno() for hold in (*mine, *others)]))
        yield mine


def refuse_running(paths: Iterable[Path]) -> None:
    """Raise InUseError for a running domain that has one of ``paths`` as a disk."""
    from imgtools.domain.users import running_domain_with

    if found := running_domain_with(list(paths)):
        path, name = found
        raise InUseError(
            f"{path}: the running domain {name} uses it", hint=f"virsh shutdown {name}"
        )


def _first(path: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return True  # what holds it will say why
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True
