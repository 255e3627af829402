"""Run a long qemu-img command: its progress as it goes, its messages at the end.

``qemu-img -p`` prints ``    (12.34/100%)\r`` (util/qemu-progress.c).  Nothing limits the time of a
job: a disk may have terabytes, and the user sees that it goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from imgtools.errors import ToolError
from imgtools.process import running

PERCENT = re.compile(rb"\(([0-9]+\.[0-9]+)/100%\)\r?")
_KEPT = 8192  # bytes of messages

Report = Callable[[float], None]
"""Called with the part that is done, from 0.0 to 1.0."""


class Result(NamedTuple):
    """How a job ended: its exit status and the lines that it printed."""

    status: int
    said: tuple[str, ...]


def silent(_part: float) -> None:
    """The `Report` of those who do not look."""


def run_job(
    argv: Sequence[str],
    report: Report = silent,
    *,
    good: Sequence[int] = (0,),
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run ``qemu-img …``, which may print its progress.

    ``pass_fds`` stay open in it (see `imgtools.image.secret`).  Returns its exit status, one of
    ``good``, and what it said.  Raises MissingToolError, and ToolError with qemu-img's last line
    for any other status.
    """
    messages = b""
    with running(argv, pass_fds=pass_fds) as child:
        assert child.stdout is not None
        rest = b""
        while chunk := os.read(child.stdout.fileno(), 65536):
            rest += chunk
            for found in PERCENT.finditer(rest):
                report(min(1.0, float(found[1]) / 100))
            rest = PERCENT.sub(b"", rest)
            # Half a number may end the chunk.
            keep = rest.rfind(b"(")
            keep = len(rest) if keep < 0 or len(rest) - keep > 16 else keep
            messages, rest = (messages + rest[:keep])[-_KEPT:], rest[keep:]
        messages += rest
        status = child.wait()
    lines = [line.strip() for line in messages.decode(errors="replace").splitlines()]
    said = tuple(line for line in lines if line)
    if status not in good:
        last = said[-1] if said else f"ended with status {status}"
        raise ToolError(last if last.startswith("qemu-img") else f"{argv[0]}: {last}")
    return Result(status, said)
