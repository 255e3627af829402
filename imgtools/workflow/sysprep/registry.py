"""The operations that are installed: ours and those of third parties, by entry points.

A distribution names its operations in the entry-point group ``imgtools.sysprep``; each entry point
is an `imgtools.api.Operation` or a list of them.  One that cannot be loaded is reported, and stops
nobody who does not ask for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from imgtools.api import Operation
from imgtools.errors import UsageError

GROUP = "imgtools.sysprep"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An operation, and the distribution (name and version) that brought it."""

    operation: Operation
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An entry point that gave no operation, and why."""

    entry: str
    origin: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All operations in the order in which they run, and what could not be loaded."""

    installed: tuple[Installed, ...]
    failures: tuple[Failure, ...]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations alone."""
        return tuple(one.operation for one in self.installed)


@cache
def registry() -> Registry:
    """Load every installed operation."""
    return build(entry_points(group=GROUP))


def build(entries: Iterable[EntryPoint]) -> Registry:
    """The registry of these entry points; a name that comes twice is the first one's."""
    installed: dict[str, Installed] = {}
    failures: list[Failure] = []
    # Ours come first: a third party does not replace what we bring.
    for entry in sorted(
        entries, key=lambda one: (not _origin(one).startswith("imgtools "), one.name)
    ):
        origin = _origin(entry)
        try:
            for operation in _operations(entry.load()):
                _refuse_clash(operation, installed)
                installed[operation.name] = Installed(operation=operation, origin=origin)
        except Exception as error:  # noqa: BLE001 (whatever a plugin raises is its own failure)
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            failures.append(Failure(entry=entry.name, origin=origin, why=why))
    ordered = sorted(installed.values(), key=lambda one: (one.operation.order, one.operation.name))
    return Registry(installed=tuple(ordered), failures=tuple(failures))


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "unknown"


def _operations(loaded: Any) -> Iterator[Operation]:
    for one in loaded if isinstance(loaded, (list, tuple)) else [loaded]:
        if not isinstance(one, Operation):
            raise TypeError(f"is no imgtools.api.Operation but {type(one).__name__}")
        if not NAME.match(one.name):
            raise ValueError(f"{one.name!r}: a name is lower-case words with hyphens")
        yield one


def _refuse_clash(operation: Operation, installed: dict[str, Installed]) -> None:
    names = {option.name for option in operation.options}
    for other in installed.values():
        one = other.operation
        if one.name == operation.name or names & {option.name for option in one.options}:
            raise ValueError(f"{operation.name}: clashes with {one.name} of {other.origin}")


def choose(
    known: Sequence[Operation], *, enable: str | None = None, operations: Sequence[str] = ()
) -> tuple[Operation, ...]:
    """The operations that ``--enable`` (only these) or ``--operations`` select, in their order.

    A word of ``operations`` is a name, ``defaults`` or ``all``, or with ``-`` before it takes that
    away; words are read from the left, and the first decides whether one begins with nothing or
    (a ``-``) with the defaults.  Raises UsageError for an unknown name, and for both at once.
    """
    if enable is not None and operations:
        raise UsageError("--enable and --operations cannot be used together")
    names = {one.name for one in known}
    defaults = {one.name for one in known if one.default}
    if enable is not None:
        chosen = set(_words([enable]))
        _refuse_unknown(chosen, names)
    else:
        chosen = _selected(_words(operations), names, defaults)
    if not chosen:
        raise UsageError("no operation is selected", hint="see: imgtools sysprep --list-operations")
    return tuple(one for one in known if one.name in chosen)


def _selected(words: Sequence[str], names: set[str], defaults: set[str]) -> set[str]:
    chosen = set() if words and not words[0].startswith("-") else set(defaults)
    for word in words:
        name = word.removeprefix("-")
        these = {"defaults": defaults, "all": names}.get(name)
        if these is None:
            _refuse_unknown({name}, names)
            these = {name}
        chosen = chosen - these if word.startswith("-") else chosen | these
    return chosen


def _words(values: Sequence[str]) -> list[str]:
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def _refuse_unknown(chosen: set[str], names: set[str]) -> None:
    import difflib

    for name in sorted(chosen - names):
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        question = f": did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"no such operation: {name}{question}", hint="see: imgtools sysprep --list-operations"
        )
