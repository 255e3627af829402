"""Output that may have to be made twice, and reaches its reader exactly once.

With *auto* a task may fail on the direct engine half-way and is then run again on the appliance.
`ResumableWriter` holds back the first megabytes until they are known to be whole; what was
let through after that is compared, by hash, with what the second run produces at the same
place, so that the reader gets neither a byte twice nor a mixture of two different answers.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from imgtools.errors import EnginesDisagreeError, ImgtoolsError, OutputError

HOLD_BACK = 32 << 20
_CHUNK = 1 << 20


class ResumableWriter:
    """Write to ``sink``; call `restart` at the start of every run and `finish` at the end."""

    def __init__(self, sink: BinaryIO, *, hold_back: int = HOLD_BACK) -> None:
        self._sink = sink
        self._hold_back = hold_back
        self._held: list[bytes] = []
        self._held_size = 0
        self._sent = 0
        self._sent_hash = hashlib.sha256()
        self._position = 0
        self._check = hashlib.sha256()

    def restart(self) -> None:
        """Forget what was held back: a run begins, which will produce all bytes again."""
        self._held.clear()
        self._held_size = 0
        self._position = 0
        self._check = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Take the next bytes of this run.

        Raises EnginesDisagreeError when they differ from those already given out, and
        OutputError when the sink fails.
        """
        if self._position < self._sent:
            data = self._skip(data)
        if not data:
            return
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > (_CHUNK if self._sent else self._hold_back):
            self._release()

    def finish(self) -> None:
        """The run is complete: give out what was held back."""
        if self._position < self._sent:
            raise self._disagree()
        self._release()

    def _skip(self, data: bytes) -> bytes:
        known = data[: self._sent - self._position]
        self._check.update(known)
        self._position += len(known)
        if self._position == self._sent and self._check.digest() != self._sent_hash.digest():
            raise self._disagree()
        return data[len(known) :]

    def _disagree(self) -> ImgtoolsError:
        return EnginesDisagreeError(
            f"the first {self._sent} bytes of the output came from a damaged filesystem and are "
            "not what the appliance reads there: discard them",
            hint="run again with --engine appliance",
        )

    def _release(self) -> None:
        try:
            for piece in self._held:
                self._sink.write(piece)
                self._sent_hash.update(piece)
                self._sent += len(piece)
            self._sink.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write the output: {error.strerror or error}") from None
        self._position = self._sent
        self._held.clear()
        self._held_size = 0
