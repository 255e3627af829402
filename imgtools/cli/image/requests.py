"""Images as the last words of a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgtools.cli.options import make_request
from imgtools.errors import UsageError

if TYPE_CHECKING:
    from imgtools.model.disks import DiskRequest


def requests_of(words: Sequence[str], image_format: str | None) -> list[DiskRequest]:
    """The images that the words name.  Raises UsageError."""
    if not words:
        raise UsageError("no image named")
    return [make_request(word, image_format) for word in words]
