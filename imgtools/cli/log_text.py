"""Lines of ``imgtools log``: journalctl's ``short`` output (systemd's shared/logs-show.c)."""

from __future__ import annotations

import re
import time

from imgtools.cli.render import safe_text
from imgtools.guest.linux.journal import JournalEntry

_TAB = b" " * 8
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_LETTERS = "KMGTPE"
_MILLION = 10**6


def short_line(entry: JournalEntry) -> bytes | None:
    """The line (or lines) of an entry without their newline; None for one without a message."""
    message = entry.get(b"MESSAGE")
    if message is None:
        return None
    head = _moment(entry)
    host = entry.get(b"_HOSTNAME")
    if host:
        head += " " + safe_text(host)
    name = entry.get(b"SYSLOG_IDENTIFIER") or entry.get(b"_COMM") or b"unknown"
    head += " " + safe_text(name)
    number = entry.get(b"_PID") or entry.get(b"SYSLOG_PID")
    if number:
        head += f"[{safe_text(number)}]"
    head += ": "
    return (head + _message(message, len(head))).encode()


def _moment(entry: JournalEntry) -> str:
    source = entry.get(b"_SOURCE_REALTIME_TIMESTAMP") or b""
    moment = int(source) if source.isdigit() and 0 < len(source) < 17 else entry.realtime
    try:
        return time.strftime("%b %d %H:%M:%S", time.localtime(moment // _MILLION))
    except (OverflowError, ValueError, OSError):
        return str(moment // _MILLION)


def _message(message: bytes, indent: int) -> str:
    """The text, its further lines indented; what is no text is only measured."""
    plain = _COLOURS.sub(b"", message).replace(b"\t", _TAB)
    try:
        text = plain.decode("utf-8")
    except UnicodeDecodeError:
        return f"[{_size(len(plain))} blob data]"
    lines = text.rstrip("\n").split("\n")
    if any(safe_text(line) != line for line in lines):
        return f"[{_size(len(plain))} blob data]"
    return ("\n" + " " * indent).join(lines)


def _size(count: int) -> str:
    """systemd's format_bytes: powers of 1024, one digit cut off."""
    for power in range(len(_LETTERS), 0, -1):
        unit = 1 << 10 * power
        if count >= unit:
            return f"{count // unit}.{count % unit * 10 // unit}{_LETTERS[power - 1]}"
    return f"{count}B"
