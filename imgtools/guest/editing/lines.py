"""A text file cut into lines, edited, and put together with the line endings that it had."""

from __future__ import annotations

from imgtools.errors import GuestOperationError
from imgtools.guest.editing.expression import Program

MAX_EDIT = 100 << 20
"""Bytes of the largest file that is edited."""


def check_text(name: str, content: bytes) -> None:
    """Raise GuestOperationError for what is no text."""
    if b"\0" in content:
        raise GuestOperationError(
            f"{name}: a binary file (it holds NUL bytes) is not edited",
            hint="imgtools copy-out, change it, and imgtools write --from FILE",
        )


def edit_lines(content: bytes, program: Program) -> bytes:
    r"""Run ``program`` on every line.

    A line that ended in ``\r\n`` is shown to the program with ``\n`` alone, so that ``$`` means its
    end, and gets its ending back.
    """
    lines = _split(content)
    dos = [line.endswith(b"\r\n") for line in lines]
    shown = [line[:-2] + b"\n" if ends else line for line, ends in zip(lines, dos, strict=True)]
    edited = program.run(shown)
    return b"".join(
        text.replace(b"\n", b"\r\n") if ends else text
        for text, ends in zip(edited, dos, strict=True)
    )


def restore_endings(before: bytes, after: bytes) -> bytes:
    r"""What an editor left, with ``\r\n`` again if every line of the original ended so."""
    lines = _split(before)
    whole = [line for line in lines if line.endswith(b"\n")]
    if whole and all(line.endswith(b"\r\n") for line in whole) and b"\r" not in after:
        return after.replace(b"\n", b"\r\n")
    return after


def _split(content: bytes) -> list[bytes]:
    parts = content.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines
