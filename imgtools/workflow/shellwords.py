"""Write a command so that it can be pasted into a shell, whatever its words hold."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def command_line(words: Iterable[str | os.PathLike[str]]) -> str:
    r"""The words quoted for a shell, on one line of printable text.

    Odd names are in shlex's quotes; those with control characters or bytes that are not UTF-8 in
    ``$'…'`` (bash, zsh, ksh, POSIX of 2024), so that the terminal shows what the shell will get.
    """
    return " ".join(_word(os.fspath(word)) for word in words)


def _word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    parts = []
    for character in word:
        if character in "'\\":
            parts.append(f"\\{character}")
        elif character.isprintable():
            parts.append(character)
        else:
            raw = character.encode("utf-8", errors="surrogateescape")
            parts += [f"\\{byte:03o}" for byte in raw]
    return f"$'{''.join(parts)}'"
