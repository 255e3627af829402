"""Passphrases of encrypted images: from a file or stdin, never from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from imgtools.errors import UsageError

MAX_KEY = 1 << 20


def read_key(name: str, option: str = "--key-file", *, may_be_empty: bool = False) -> bytes:
    """The passphrase in the file ``name``, or on stdin for ``-``; one newline at its end goes.

    An empty one is refused here, or with ``may_be_empty`` by whoever gives it to qemu.  Raises
    UsageError.
    """
    try:
        if name == "-":
            key = sys.stdin.buffer.read(MAX_KEY + 1)
        else:
            with Path(name).open("rb") as stream:
                key = stream.read(MAX_KEY + 1)
    except OSError as error:
        raise UsageError(f"{option} {name}: cannot be read: {error.strerror}") from None
    key = key.removesuffix(b"\n")
    if not key and not may_be_empty:
        raise UsageError(f"{option} {name}: the key is empty")
    if len(key) > MAX_KEY:
        raise UsageError(f"{option} {name}: is too large for a key")
    return key
