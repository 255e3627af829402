"""Shell patterns on a guest's files: ``*``, ``?`` and ``[…]``, links resolved in the guest."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from imgtools.errors import (
    GuestFileNotFoundError,
    GuestNotADirectoryError,
    GuestOperationError,
    GuestSymlinkLoopError,
)
from imgtools.guest.tree import GuestTree, show

MAX_MATCHES = 200_000
"""Files that one pattern may match."""
_GLOB = frozenset(b"*?[")


def glob(tree: GuestTree, *patterns: bytes, below: bytes = b"/") -> Iterator[bytes]:
    """The paths that patterns match below a folder, whose own name is no pattern.

    ``*`` matches hidden names, too.  Links in the folders on the way are followed; each path
    comes once, in the order of its pattern.  Raises GuestOperationError for more than
    `MAX_MATCHES`.
    """
    seen: set[bytes] = set()
    for pattern in patterns:
        for path in _match(tree, below, pattern.split(b"/")):
            if path not in seen:
                seen.add(path)
                yield path
            if len(seen) > MAX_MATCHES:
                raise GuestOperationError(f"{show(pattern)}: matches more than {MAX_MATCHES} files")


def _match(tree: GuestTree, folder: bytes, parts: list[bytes]) -> Iterator[bytes]:
    while parts and not parts[0]:
        parts = parts[1:]
    if not parts:
        return
    name, *rest = parts
    for found in _names(tree, folder, name):
        path = folder.rstrip(b"/") + b"/" + found
        if any(rest):
            yield from _match(tree, path, rest)
        else:
            yield path


def _names(tree: GuestTree, folder: bytes, name: bytes) -> list[bytes]:
    try:
        if not _GLOB & set(name):
            tree.lstat(folder.rstrip(b"/") + b"/" + name)
            return [name]
        entries = tree.listdir(folder)
    except (GuestFileNotFoundError, GuestNotADirectoryError, GuestSymlinkLoopError):
        return []
    return sorted(entry for entry in entries if fnmatch.fnmatchcase(entry, name))
