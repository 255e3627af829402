"""What the user should know beside a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the user should know that did not stop the command.

    ``code`` is dotted and stable like an error's; ``message`` is one line.
    """

    code: str
    message: str
