"""Give qemu-img a passphrase that is never on a command line nor in a file.

It lies in memory (memfd_create(2)); qemu reads ``/dev/fd/N`` through the object ``secret``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Secrets(NamedTuple):
    """``words`` of the command line, and the descriptors that the child needs for them."""

    words: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


@contextlib.contextmanager
def secret_objects(secrets: Sequence[tuple[str, bytes]]) -> Iterator[Secrets]:
    """The objects for pairs of an id and its secret, while the block lasts."""
    words: list[str] = []
    fds: list[int] = []
    try:
        for name, secret in secrets:
            fd = os.memfd_create("imgtools", os.MFD_CLOEXEC)
            fds.append(fd)
            os.write(fd, secret)
            words += ["--object", f"secret,id={name},file=/dev/fd/{fd}"]
        yield Secrets(tuple(words), tuple(fds))
    finally:
        for fd in fds:
            os.close(fd)
