"""Reading small text files of a guest, where damage costs one field and leaves a warning.

A missing file is an answer, not damage.  Everything else that goes wrong while a field is found
(a directory in place of the file, a loop of links, fifty megabytes, a broken block) becomes a
`Notice` of code ``inspect.<field>`` and the field stays empty.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from imgtools.errors import (
    DirectError,
    GuestFileNotFoundError,
    GuestNotADirectoryError,
    GuestOperationError,
)
from imgtools.guest.tree import GuestTree
from imgtools.model.notices import Notice

T = TypeVar("T")

SMALL = 2 * 1048 * 1024  # libguestfs's bound for a release file
MAX_VALUE = 4096
MAX_LINES = 20_000
MAX_WARNINGS = 200

# What a hole in one of our own parsers would raise on hostile bytes.
_PARSER_FAULTS = (
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    struct.error,
)


class Findings:
    """The warnings of one guest, and reads that turn damage into them.

    ``tolerant`` also turns what the direct engine refuses (`DirectError`) into a warning: for when
    that engine was asked for and there is no other to fall back to.
    """

    def __init__(self, guest: str, *, tolerant: bool = False) -> None:
        self.guest = guest
        self.warnings: list[Notice] = []
        self.caught: tuple[type[Exception], ...] = (
            (GuestOperationError, DirectError) if tolerant else (GuestOperationError,)
        )

    def warn(self, field: str, message: str) -> None:
        """Record a warning about a field, once."""
        notice = Notice(code=f"inspect.{field}", message=f"{self.guest}: {field}: {message}")
        if notice not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(notice)

    def attempt(self, field: str, find: Callable[[], T], default: T) -> T:
        """What ``find`` returns, or ``default`` and a warning."""
        try:
            return find()
        except self.caught as error:
            self.warn(field, str(error))
        except _PARSER_FAULTS as error:
            self.warn(field, f"unreadable ({type(error).__name__}: {str(error)[:200]})")
        return default

    def read(self, tree: GuestTree, field: str, path: bytes, limit: int = SMALL) -> bytes | None:
        """The content of a file; None if it is missing or, with a warning, unreadable."""
        try:
            return tree.read(path, limit=limit)
        except (GuestFileNotFoundError, GuestNotADirectoryError):
            return None
        except self.caught as error:
            self.warn(field, str(error))
            return None

    def lines(
        self, tree: GuestTree, field: str, path: bytes, limit: int = SMALL
    ) -> list[bytes] | None:
        """The lines of a small text file, or None as `read`."""
        data = self.read(tree, field, path, limit)
        if data is None:
            return None
        lines = data.split(b"\n", MAX_LINES)
        if len(lines) > MAX_LINES:
            self.warn(field, f"{decode(path)}: more than {MAX_LINES} lines; the rest is unread")
            lines = lines[:MAX_LINES]
        return lines


def link_target(tree: GuestTree, path: bytes) -> bytes:
    """Where the symbolic link ``path`` leads, as stored; empty if it is none."""
    try:
        # Asked first: an engine may take readlink of something else for damage.
        return tree.readlink(path) if tree.lstat(path).kind == "l" else b""
    except GuestOperationError:
        return b""


def decode(raw: bytes) -> str:
    """Guest bytes as text of bounded length, what is not UTF-8 as surrogates."""
    return raw[:MAX_VALUE].decode("utf-8", errors="surrogateescape")


def encode(value: str) -> bytes:
    """The guest bytes of a `decode`d text."""
    return value.encode("utf-8", errors="surrogateescape")


def key_values(lines: list[bytes], unquote: Callable[[bytes], bytes]) -> list[tuple[bytes, bytes]]:
    """``KEY=value`` lines in order, as shells and systemd write them; comments are left out."""
    pairs = []
    for raw in lines:
        line = raw.strip()
        if line and not line.startswith(b"#"):
            key, _, value = line.partition(b"=")
            pairs.append((key.strip(), unquote(value.strip())))
    return pairs


def simple_unquote(value: bytes) -> bytes:
    """``value`` without one pair of quotes around it."""
    if len(value) >= 2 and value[:1] == value[-1:] and value[:1] in (b'"', b"'"):
        return value[1:-1]
    return value


def shell_unquote(value: bytes) -> bytes:
    r"""``value`` without its quotes; in double quotes ``\$ \` \" \\`` lose the backslash."""
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        inner = value[1:-1]
        if b"\\" not in inner:
            return inner
        for character in b'$`"':
            escaped = bytes((character,))
            inner = inner.replace(b"\\" + escaped, escaped)
        return inner.replace(b"\\\\", b"\\")
    return simple_unquote(value)
