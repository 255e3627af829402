"""Passphrases of encrypted images: from a file or stdin, never from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

import click

from imgtools.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

MAX_KEY = 1 << 20


def refuse_two_from_stdin(*names: str | None) -> None:
    """Raise UsageError when more than one key is to come from stdin."""
    if names.count("-") > 1:
        raise UsageError("only one key can come from stdin", hint="put the other into a file")


def key_option(*names: str, help: str) -> Callable[[F], F]:  # noqa: A002 (click's word)
    """An option that names the file of a key, or ``-`` for stdin."""
    return click.option(*names, metavar="FILE|-", help=help)


@overload
def read_key(name: str, option: str = ..., *, may_be_empty: bool = ...) -> bytes: ...
@overload
def read_key(name: None, option: str = ..., *, may_be_empty: bool = ...) -> None: ...
@overload
def read_key(name: str | None, option: str = ..., *, may_be_empty: bool = ...) -> bytes | None: ...


def read_key(
    name: str | None, option: str = "--key-file", *, may_be_empty: bool = False
) -> bytes | None:
    """The passphrase in the file ``name``, or on stdin for ``-``; one newline at its end goes.

    None where no file is named.  An empty one is refused here, or with ``may_be_empty`` by whoever
    gives it to qemu.  Raises UsageError.
    """
    if name is None:
        return None
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
