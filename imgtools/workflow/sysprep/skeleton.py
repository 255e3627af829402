"""The beginning of a third party's distribution with one operation."""

from __future__ import annotations

from pathlib import Path

from imgtools.errors import OutputError, RefusedError, UsageError
from imgtools.workflow.sysprep.registry import GROUP, NAME

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "imgtools-{name}"
version = "0.1.0"
description = "An operation of imgtools sysprep"
requires-python = ">=3.11"
dependencies = ["imgtools"]

[project.entry-points."{group}"]
{name} = "{module}:operation"

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""

_MODULE = '''\
"""{name}: say here what it removes, and why clones must not share it."""

from collections.abc import Iterable, Mapping
from typing import Any

from imgtools.api import Action, Guest, Operation, remove


def plan(guest: Guest, options: Mapping[str, Any]) -> Iterable[Action]:
    """What would be done; nothing is changed here."""
    yield from remove(guest, "/var/lib/example/id", "/var/log/example/*")


operation = Operation(
    name="{name}",
    heading="Remove what {name} keeps",
    plan=plan,
)
'''


def write_skeleton(name: str, folder: Path) -> list[Path]:
    """Write the distribution's files; the paths, the module last.

    Raises UsageError for a bad name, RefusedError if the folder is there, OutputError.
    """
    if not NAME.match(name):
        raise UsageError(f"{name}: a name is lower-case words with hyphens, as remove-my-agent")
    module = f"imgtools_{name.replace('-', '_')}"
    texts = {"pyproject.toml": _PYPROJECT, f"{module}.py": _MODULE}
    try:
        folder.mkdir(parents=True)
        paths = []
        for file, text in texts.items():
            path = folder / file
            path.write_text(text.format(name=name, module=module, group=GROUP), encoding="utf-8")
            paths.append(path)
    except FileExistsError:
        raise RefusedError(f"{folder}: exists already", hint="choose another --folder") from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    return paths
