"""A JSON envelope around more results than memory should hold."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from imgtools.cli.render import SCHEMA_VERSION, jsonable
from imgtools.errors import OutputError
from imgtools.model.notices import Notice

_IN_MEMORY = 8 << 20


class JsonStream:
    """Collect the items of a result's list in a file, and print the envelope around them."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._empty = True

    def restart(self) -> None:
        """Forget every item: the task begins again."""
        self._file.seek(0)
        self._file.truncate()
        self._empty = True

    def add(self, item: Any) -> None:
        """Take one item.  Raises OutputError when the temporary folder is full."""
        text = json.dumps(jsonable(item), ensure_ascii=False)
        try:
            self._file.write((b"" if self._empty else b",\n") + b"      " + text.encode())
        except OSError as error:
            raise OutputError(f"cannot keep the results: {error.strerror}") from None
        self._empty = False

    def finish(
        self,
        name: str,
        *,
        engine: str | None,
        warnings: Iterable[Notice] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Print the envelope; its result is ``more`` with the items as the list ``name``."""
        head = {
            "schema": f"imgtools/{self._command}",
            "version": SCHEMA_VERSION,
            "engine": engine,
        }
        write = sys.stdout.write
        write("{\n" + "".join(f"  {_pair(key, value)},\n" for key, value in head.items()))
        write('  "result": {\n')
        for key, value in (more or {}).items():
            write(f"    {_pair(key, value)},\n")
        write(f'    "{name}": [\n')
        sys.stdout.flush()
        self._file.seek(0)
        while chunk := self._file.read(1 << 20):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        write(f"\n    ]\n  }},\n  {_pair('warnings', list(warnings))}\n}}\n")
        self._file.close()


def _pair(key: str, value: Any) -> str:
    return f"{json.dumps(key)}: {json.dumps(jsonable(value), ensure_ascii=False)}"
