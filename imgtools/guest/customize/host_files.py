"""Values that options read from files of this host."""

from __future__ import annotations

from pathlib import Path

from imgtools.errors import UsageError

MAX_FILE = 1 << 20
"""Bytes of a script, or of a file with keys."""


def read_file(name: str, option: str, *, limit: int = MAX_FILE) -> bytes:
    """The content of a file, read once.  Raises UsageError for none, an empty or a larger one."""
    try:
        with Path(name).open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such name"
        raise UsageError(f"{option}: {name}: cannot be read: {why}") from None
    if not data:
        raise UsageError(f"{option}: {name}: is empty")
    if len(data) > limit:
        raise UsageError(f"{option}: {name}: larger than {limit} bytes")
    return data


def read_secret(name: str, option: str) -> bytes:
    """The first line of a file, as virt-customize reads passwords; more lines do not count.

    The content appears in no message.
    """
    line = read_file(name, option, limit=1 << 16).partition(b"\n")[0].removesuffix(b"\r")
    if not line:
        raise UsageError(f"{option}: {name}: the first line is empty")
    return line
