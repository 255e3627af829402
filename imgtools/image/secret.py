"""Give keys to qemu-img: in memory, by a file descriptor, never on a disk or a command line.

``--object secret,file=`` reads a file by its name; an anonymous file (memfd_create) has one while
the descriptor is open: ``/proc/self/fd/N`` of the child that inherits it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from imgtools.errors import ToolError, UsageError
from imgtools.process import run

T = TypeVar("T")

SOURCE = "source"
TARGET = "target"
# qemu times the key derivation of a LUKS header before it writes anything, and gives up by chance
# when the host is busy (qcrypto_pbkdf2_count_iters in crypto/pbkdf.c).
_UNTIMED = "Unable to get accurate CPU usage"
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a qemu-img that needs keys is started with: ``words`` of argv, open descriptors."""

    words: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


@contextlib.contextmanager
def secrets(keys: Mapping[str, bytes | None]) -> Iterator[Secrets]:
    """The keys by their ids, `SOURCE` and `TARGET`; those that are None are left out.

    Raises UsageError for a key that qemu cannot use: empty, or not UTF-8 (crypto/secret_common.c).
    """
    with contextlib.ExitStack() as stack:
        words: list[str] = []
        fds: list[int] = []
        for name, key in keys.items():
            if key is None:
                continue
            _refuse_unusable(name, key)
            fd = os.memfd_create(f"imgtools-{name}")
            stack.callback(os.close, fd)
            os.write(fd, key)
            fds.append(fd)
            words += ["--object", f"secret,id={name},file=/proc/self/fd/{fd}"]
        yield Secrets(tuple(words), tuple(fds))


def _refuse_unusable(name: str, key: bytes) -> None:
    if not key:
        raise UsageError(f"the {name} key is empty")
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(
            f"the {name} key is not UTF-8 text, which qemu-img needs",
            hint="a binary key: open the volume with cryptsetup instead",
        ) from None


def untimed_again(act: Callable[[], T]) -> T:
    """Run a qemu-img that makes keys, again when it could not time itself.  Raises ToolError."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return act()
        except ToolError as error:
            if _UNTIMED not in error.message:
                raise
    return act()


def run_with(keys: Secrets, argv: Sequence[str], *, timeout: float) -> bytes:
    """Run a qemu-img command that uses ``keys``; what it printed.  Raises ToolError."""
    done = untimed_again(lambda: run(argv, timeout=timeout, pass_fds=keys.fds))
    return done.stdout
