"""The values of options: what stands before and after a colon, and paths of the guest."""

from __future__ import annotations

import os
from pathlib import Path

from imgtools.errors import UsageError


def guest_path(word: str) -> bytes:
    """A path in the guest.  Raises UsageError unless it is absolute."""
    if not word.startswith("/"):
        raise UsageError(f"{word!r}: not an absolute path", hint="paths in the guest start with /")
    if "\0" in word:
        raise UsageError("a path holds no NUL")
    return os.fsencode(word)


def pair(value: str, shape: str) -> tuple[str, str]:
    """What stands before and after the first colon.  Raises UsageError naming the ``shape``."""
    first, colon, second = value.partition(":")
    if not colon or not first:
        raise UsageError(f"expected {shape}")
    return first, second


def host_file(word: str) -> Path:
    """A regular file of this host.  Raises UsageError."""
    path = Path(word)
    if not word or not path.is_file():
        raise UsageError(f"{word}: no such file on this host")
    return path


def packages(value: str) -> tuple[str, ...]:
    """The names of a list with commas.  Raises UsageError for none, or one that is an option."""
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise UsageError("names no package", hint="PKG,PKG..")
    for name in names:
        if name.startswith("-") or any(ord(letter) <= 0x20 for letter in name):
            raise UsageError(f"{name!r}: is no name of a package")
    return names
