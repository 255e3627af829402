"""What a long task tells of its progress."""

from __future__ import annotations


class Progress:
    """Told what was copied; this one does not care."""

    def restart(self) -> None:
        """The copy begins again."""

    def advance(self, count: int) -> None:
        """``count`` more bytes of files were copied."""

    def member(self, path: bytes) -> None:
        """The next file begins."""
