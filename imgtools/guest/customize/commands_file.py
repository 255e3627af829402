"""``--commands-from-file``: options one a line, ``NAME VALUE`` without quotes or dashes.

The form is virt-customize's (customize_cmdline.ml, String.lines_split): spaces before a line are
nothing, ``#`` begins a line that is a comment, the value is what follows the first space to the
end of the line, and a backslash at the end of a line joins the next one with a line break.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from imgtools.errors import UsageError
from imgtools.guest.customize.base import Row
from imgtools.guest.customize.plan import Given
from imgtools.guest.customize.table import OPTIONS

NAME = "commands-from-file"
MAX_FILE = 16 << 20


def read_commands(path: Path, options: Sequence[Row] = OPTIONS) -> list[Given]:
    """The options of a file.  Raises UsageError that names the line."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"--{NAME}: {path}: {error.strerror}") from None
    if len(raw) > MAX_FILE:
        raise UsageError(f"--{NAME}: {path}: larger than {MAX_FILE >> 20} MiB")
    rows = {row.name: row for row in options}
    text = raw.decode("utf-8", errors="surrogateescape")
    return [_given(f"{path}, line {number}", line, rows) for number, line in _lines(text)]


def _given(where: str, line: str, rows: dict[str, Row]) -> Given:
    name, _, value = line.partition(" ")
    row = rows.get(name)
    if row is None:
        raise UsageError(f"{where}: {name}: no such command", hint="names have no dashes before")
    if row.metavar is None and value.strip():
        raise UsageError(f"{where}: {name}: takes no value")
    if row.metavar is not None and not value.strip():
        raise UsageError(f"{where}: {name}: expected {row.metavar}")
    return Given(name=name, value=value if row.metavar else "", where=f"{where}: {name}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, joined where they are continued, with the first's number."""
    begun, pieces = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        begun = begun or number
        if line.endswith("\\"):
            pieces.append(line[:-1])
            continue
        joined = "\n".join([*pieces, line]).lstrip()
        if joined and not joined.startswith("#"):
            yield begun, joined
        begun, pieces = 0, []
    joined = "\n".join([*pieces, ""]).lstrip() if pieces else ""
    if joined and not joined.startswith("#"):
        yield begun, joined


def given(options: Sequence[tuple[str, str]]) -> list[Given]:
    """Options as (name, value) in their order, those of files in the place of the file.

    Raises UsageError.
    """
    found: list[Given] = []
    for name, value in options:
        if name == NAME:
            found += read_commands(Path(value))
        else:
            found.append(Given(name=name, value=value, where=f"--{name}"))
    return found
