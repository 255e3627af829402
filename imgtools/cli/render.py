"""Tables, CSV and the JSON envelope; text from a guest made safe for a terminal.

Data goes to stdout, talk to stderr.  JSON is one object, described in docs/json.md:
``{"schema": "imgtools/<command>", "version": 1, "engine": …, "result": …, "warnings": […]}``.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgtools.cli.options import Output
from imgtools.errors import EXIT_OK, EXIT_WARNINGS, ImgtoolsError
from imgtools.model.notices import Notice

SCHEMA_VERSION = 1


def safe_text(value: str | bytes) -> str:
    r"""Text that cannot move the cursor or hide anything: control characters become ``\xNN``.

    Bytes that are not UTF-8 become ``\xNN`` as well, so that no two names print the same way.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="surrogateescape")
    return "".join(_safe_character(character) for character in value)


def _safe_character(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    # C0, DEL and C1 controls; the bidirectional overrides that make one name look like another.
    if number < 0x20 or 0x7F <= number < 0xA0:
        return f"\\x{number:02x}"
    if number in (0x200E, 0x200F) or 0x2028 <= number <= 0x202E or 0x2066 <= number <= 0x2069:
        return f"\\u{number:04x}"
    if 0xD800 <= number <= 0xDFFF:
        return f"\\u{number:04x}"
    return character


def jsonable(value: Any) -> Any:
    """Turn records, bytes and paths into what ``json`` writes.

    A field of bytes that is not UTF-8 (or text with lone surrogates) appears twice: its safe
    form under its own name and the raw bytes under ``<name>_base64``.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _json_object({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return _json_object(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes | str):
        return _json_text(value)[0]
    if isinstance(value, Path):
        return _json_text(str(value))[0]
    return value


def _json_object(items: Mapping[Any, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in items.items():
        name = _json_text(key)[0] if isinstance(key, bytes | str) else str(key)
        if isinstance(value, bytes | str | Path):
            text, raw = _json_text(str(value) if isinstance(value, Path) else value)
            result[name] = text
            if raw is not None:
                result[f"{name}_base64"] = base64.b64encode(raw).decode("ascii")
        else:
            result[name] = jsonable(value)
    return result


def _json_text(value: bytes | str) -> tuple[str, bytes | None]:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", errors="surrogateescape")
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return safe_text(raw), raw


def print_json(
    command: str, result: Any, *, engine: str | None = None, warnings: Iterable[Notice] = ()
) -> None:
    """Print the envelope of ``command`` on stdout."""
    document = {
        "schema": f"imgtools/{command}",
        "version": SCHEMA_VERSION,
        "engine": engine,
        "result": jsonable(result),
        "warnings": [jsonable(warning) for warning in warnings],
    }
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def csv_field(value: str | bytes | int) -> bytes:
    """Quote a CSV field by the virt-* tools' rule: only around space, quote, comma, newline."""
    raw = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
    if any(character in raw for character in b' ",\n'):
        return b'"' + raw.replace(b'"', b'""') + b'"'
    return raw


def print_csv(rows: Iterable[Sequence[str | bytes | int]]) -> None:
    """Print rows as CSV on stdout (raw bytes: CSV is for programs, not for a terminal)."""
    sys.stdout.flush()
    for row in rows:
        sys.stdout.buffer.write(b",".join(csv_field(cell) for cell in row) + b"\n")
    sys.stdout.buffer.flush()


def print_columns(
    rows: Sequence[Sequence[str | bytes | int]], *, right: Iterable[int] = (), gap: str = " "
) -> None:
    """Print rows in aligned columns on stdout, made safe for a terminal.

    ``right`` are the indexes of columns aligned to the right.  A column's width is that of its
    widest cell; the last column is not padded.
    """
    right = frozenset(right)
    cells = [[safe_text(c if isinstance(c, bytes) else str(c)) for c in row] for row in rows]
    if not cells:
        return
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        parts = [
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ]
        print(gap.join(parts).rstrip())


def tell(message: str) -> None:
    """Print one line of talk on stderr."""
    print(f"imgtools: {safe_text(message)}", file=sys.stderr)


def tell_engine(output: Output, engine: str, reason: str, *, guest: str = "") -> None:
    """With -v, say on stderr which engine read, and why not the other."""
    if output.verbose:
        prefix = f"{guest}: " if guest else ""
        tell(f"{prefix}engine {engine}" + (f" ({reason})" if reason else ""))


def report_failures(failures: Sequence[ImgtoolsError]) -> int:
    """Tell each failure of a command that goes on after one; the first one's exit code."""
    if len(failures) == 1:
        raise failures[0]
    for failure in failures:
        tell(failure.message + (f" -- {failure.hint}" if failure.hint else ""))
    return failures[0].exit_code if failures else EXIT_OK


def finish(output: Output, warnings: Iterable[Notice]) -> int:
    """Print warnings on stderr (unless quiet, or already in the JSON) and return the exit code.

    Advice is printed as well, but is no warning: nothing is wrong.
    """
    warnings = list(warnings)
    advice = [notice for notice in warnings if notice.code.startswith("advice.")]
    if not output.quiet and not output.json:
        for notice in warnings:
            tell(notice.message if notice in advice else f"warning: {notice.message}")
    return EXIT_WARNINGS if output.strict and len(warnings) > len(advice) else EXIT_OK
