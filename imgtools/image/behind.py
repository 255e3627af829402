"""Bring a file that another program is writing to its storage meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PERIOD = 0.1


@contextmanager
def written_behind(path: Path) -> Iterator[None]:
    """While the body runs, what is written to the new file ``path`` goes to storage.

    Otherwise a copy fills the page cache first, at the cost of everything else on the host, and the
    fsync at its end takes longer than the copy.

    Raises OSError if the storage failed: the kernel tells each error of writing to one fsync only,
    so that the last one might not see it.  An exception of the body is not held up.
    """
    failures: list[OSError] = []
    ended = threading.Event()

    def work() -> None:
        try:
            _follow(path, ended)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="imgtools-behind", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
    thread.join()
    if failures:
        raise failures[0]


def _follow(path: Path, ended: threading.Event) -> None:
    fd = -1
    try:
        while not ended.wait(_PERIOD):
            if fd >= 0:
                os.fdatasync(fd)
            elif path.exists():
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    finally:
        if fd >= 0:
            os.close(fd)
