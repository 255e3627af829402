"""What qemu-img's last line means for the user."""

from __future__ import annotations

import re
from collections.abc import Mapping

from imgtools.errors import EncryptedError, ImgtoolsError, SpaceError, ToolError, UsageError

_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")
_OPTIONS = re.compile(
    r"invalid (parameter|option|value|buffer)|Parameter '|must be"
    r"|not supported|unsupported|does not support|can ?not be used|mutually exclusive",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"\btoo (large|big)\b|max size", re.IGNORECASE)
_KEY = re.compile(r"Invalid password|cannot unlock any keyslot")


def wrong_key(text: str) -> bool:
    """True for qemu-img's words about a key that opens nothing."""
    return _KEY.search(text) is not None


def failure(error: ToolError, about: str, names: Mapping[str, str]) -> ImgtoolsError:
    """The error to raise for one of qemu-img that made or measured a new image.

    ``about`` is the image in question; ``names``: what the line calls our files, and what the user
    calls them.
    """
    text = error.message.removeprefix("qemu-img: ")
    for spec, name in names.items():
        text = text.replace(spec, name)
    if not text.startswith(f"{about}: "):
        text = f"{about}: {text}"
    if any(word in text for word in _SPACE):
        return SpaceError(f"{text}; nothing was kept", hint="free some space, or write elsewhere")
    if wrong_key(text):
        return EncryptedError(f"{text}: the key does not open it", hint="check the key")
    if _LIMIT.search(text):
        return UsageError(text, hint="choose a format that takes such a size: qcow2, raw")
    if _OPTIONS.search(text):
        return UsageError(text, hint="the options of a format: qemu-img create -f FORMAT -o help")
    return ToolError(text)
