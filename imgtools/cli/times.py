"""Points in time as people and journalctl write them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from imgtools.errors import UsageError

_MILLION = 10**6
_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_AGO = re.compile(r"-?(\d{1,6}) ?(s|sec|m|min|h|hours?|d|days?)(?: ago)?")
_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%H:%M:%S", "%H:%M")


def parse_time(text: str, now: datetime, *, option: str) -> int:
    """A time as journalctl takes it, in microseconds since the epoch.  Raises UsageError."""
    word = text.strip()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if word in named:
        return _micro(named[word])
    if match := re.fullmatch(r"@(\d{1,12})", word):
        return int(match[1]) * _MILLION
    if match := _AGO.fullmatch(word):
        unit = match[2] if match[2] in _UNITS else match[2].removesuffix("s")
        return _micro(now) - int(match[1]) * _UNITS[unit] * _MILLION
    for form in _FORMS:
        try:
            found = time.strptime(word.replace("T", " "), form)
        except ValueError:
            continue
        if "%Y" not in form:
            found = time.strptime(f"{now:%Y-%m-%d} {word}", f"%Y-%m-%d {form}")
        try:
            return int(time.mktime(found)) * _MILLION
        except OverflowError:
            break
    raise UsageError(f"{option} {text}: not a time", hint="2026-11-24 08:00, @SECONDS, today, -2h")


def _micro(moment: datetime) -> int:
    return int(moment.timestamp() * _MILLION)
