"""Give qemu-img a passphrase that is never on a command line nor in a file.

It lies in memory (memfd_create(2)); qemu reads ``/dev/fd/N`` through the object ``secret``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from imgtools.errors import ToolError
from imgtools.process import run

# Where the kernel counts a process's time coarsely, qemu's measuring of its PBKDF2 may see none.
_UNLUCKY = "Unable to get accurate CPU usage"
_ATTEMPTS = 10


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


def run_with(secrets: Secrets, argv: Sequence[str], *, timeout: float) -> bytes:
    """Run a qemu-img command that uses ``secrets``; what it printed.  Raises ToolError."""
    for attempt in itertools.count(1):
        try:
            return run(argv, timeout=timeout, pass_fds=secrets.fds).stdout
        except ToolError as error:
            if _UNLUCKY not in error.message or attempt == _ATTEMPTS:
                raise
    raise AssertionError
