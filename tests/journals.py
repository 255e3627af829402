"""Real journal files, written by systemd-journal-remote from what journald would export."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

REMOTE = "/lib/systemd/systemd-journal-remote"
BOOTS = ("0123456789abcdef0123456789abcde0", "0123456789abcdef0123456789abcde1")
START = 1_700_000_000_000_000  # microseconds
MACHINE = "b08dfa6083e7567a1921a715000001fb"

Fields = Mapping[str, bytes | str]


def entries(count: int = 3000) -> list[Fields]:
    """A varied log over two boots: every priority, several units, odd and large messages."""
    numbers = random.Random(7)
    units = ("ssh.service", "cron.service", "nginx.service", "init.scope")
    found: list[Fields] = []
    for number in range(count):
        unit = units[number % len(units)]
        boot = BOOTS[number >= count * 2 // 3]
        fields: dict[str, bytes | str] = {
            "__REALTIME_TIMESTAMP": str(START + number * 61_000_000),
            "__MONOTONIC_TIMESTAMP": str(1_000_000 + number * 61_000_000),
            "_BOOT_ID": boot,
            "_MACHINE_ID": MACHINE,
            "_HOSTNAME": "guest",
            "PRIORITY": str(numbers.randrange(8)),
            "_SYSTEMD_UNIT": unit,
            "_PID": "1" if unit == "init.scope" else str(numbers.randrange(300, 9000)),
            "_UID": "0",
            "SYSLOG_IDENTIFIER": "systemd" if unit == "init.scope" else unit.partition(".")[0],
            "MESSAGE": f"message {number} of {unit}",
        }
        if unit == "init.scope":
            fields["UNIT"] = "ssh.service"
        found.append(fields | odd(number))
    return found


def odd(number: int) -> dict[str, bytes | str]:
    """What makes one entry in a few special."""
    if number % 100 == 7:
        return {"MESSAGE": "first line\nsecond\tline\n\nlast"}
    if number % 100 == 17:
        return {"MESSAGE": b"\x01\x02 binary \xff\xfe", "BLOB": bytes(range(256)) * 8}
    if number % 100 == 27:
        return {"MESSAGE": "\x1b[31mcoloured\x1b[0m gr\u00fc\u00df-\u65e5\u672c"}
    if number % 100 == 37:
        return {"MESSAGE": f"long {number} " * 400}  # compressed
    if number % 100 == 47:
        return {"_SOURCE_REALTIME_TIMESTAMP": str(START + number * 61_000_000 - 5_000_000)}
    if number % 100 == 57:
        return {"MESSAGE": "\x1b[2J\x1b]0;title\x07 escapes", "SYSLOG_IDENTIFIER": "evil"}
    if number % 100 == 67:
        return {"MESSAGE": b"x" * 5000 + b"\x03"}
    return {}


def export(found: Iterable[Fields]) -> bytes:
    """The Journal Export Format: https://systemd.io/JOURNAL_EXPORT_FORMATS."""
    parts = []
    for fields in found:
        for name, value in fields.items():
            raw = value.encode() if isinstance(value, str) else value
            if raw.isascii() and raw.decode().isprintable():
                parts.append(name.encode() + b"=" + raw + b"\n")
            else:
                size = len(raw).to_bytes(8, "little")
                parts.append(name.encode() + b"\n" + size + raw + b"\n")
        parts.append(b"\n")
    return b"".join(parts)


def write(path: Path, found: Iterable[Fields], **environment: str) -> Path:
    """Write a journal file; ``SYSTEMD_JOURNAL_COMPACT`` and ``_KEYED_HASH`` choose its format."""
    subprocess.run(
        [REMOTE, "-o", path, "-"],
        input=export(found), check=True, capture_output=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    return path


def journalctl(*words: str | Path) -> bytes:
    """What journalctl prints, in UTC."""
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
    command = ["journalctl", "--no-pager", "-o", "short", *words]
    return subprocess.run(command, check=True, capture_output=True, env=environment).stdout
