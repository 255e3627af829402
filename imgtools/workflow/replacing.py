"""An image that is about to be replaced or overwritten: nobody may count on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from imgtools.errors import RefusedError
from imgtools.image.children import overlays_of
from imgtools.image.hold import Hold, hold_for_change
from imgtools.image.newfile import behind_links
from imgtools.process import inheriting
from imgtools.transaction.record import has_record
from imgtools.workflow.held import refuse_running


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Hold | None]:
    """Hold ``target`` for as long as the block lasts; None where there is nothing yet.

    Raises InUseError when a guest or another program uses it, and RefusedError when overlays rest
    on it or a change of it was interrupted.
    """
    if not target.exists():
        yield None
        return
    refuse_relied_on(target)
    hold = hold_for_change(target)
    try:
        with inheriting([hold.fileno()]):
            yield hold
    finally:
        hold.release()


def refuse_relied_on(target: Path) -> None:
    """Raise RefusedError or InUseError if something needs ``target`` as it is."""
    refuse_running([target])
    if has_record(target):
        raise RefusedError(
            f"{target}: a change of it was interrupted", hint=f"first: imgtools recover {target}"
        )
    if target.is_block_device():
        return
    for folder in {path.absolute().parent for path in (target, behind_links(target))}:
        if above := overlays_of(target, folder):
            raise RefusedError(
                f"{target}: {above[0]} rests on it, and would not fit another content",
                hint="write to another name",
            )
