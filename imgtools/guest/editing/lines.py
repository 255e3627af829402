"""A text file cut into lines, edited, and put together with the line endings that it had."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator

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
    end, and gets its ending back; unless the program is about ``\r`` itself.
    """
    dos: deque[bool] = deque()

    def shown() -> Iterator[bytes]:
        for line in io.BytesIO(content):
            ends = line.endswith(b"\r\n") and not program.endings
            dos.append(ends)
            yield line[:-2] + b"\n" if ends else line

    out = io.BytesIO()
    for text in program.run(shown()):
        out.write(text.replace(b"\n", b"\r\n") if dos.popleft() else text)
    return out.getvalue()


def restore_endings(before: bytes, after: bytes) -> bytes:
    r"""What an editor left, with ``\r\n`` again if every line of the original ended so."""
    count = before.count(b"\n")
    if count and count == before.count(b"\r\n") and b"\r" not in after:
        return after.replace(b"\n", b"\r\n")
    return after
