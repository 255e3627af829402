"""Steps in a file: each is a writing command, parsed by that command's own options."""

from __future__ import annotations

import reprlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from imgtools.cli.changing import Change
from imgtools.errors import ImgtoolsError, UsageError

if TYPE_CHECKING:
    from imgtools.guest.steps import Done, Step
    from imgtools.guest.tree import GuestTree
    from imgtools.guest.writing import GuestFiles

KNOWN = (
    *("append-line", "chmod", "chown", "copy-in", "edit", "ln", "mkdir", "mv", "rm", "tar-in"),
    *("touch", "truncate", "write"),
)
# How YAML may call the words that stand without an option, in the order that they are wanted in.
_PLAIN = (
    *("mode", "owner", "path", "paths", "file", "files", "args", "target", "link", "to", "dir"),
    *("line", "lines"),
)

Located = tuple[str, list[str]]
"""Where a step stands, and its words."""


def read_lines(text: bytes, name: str) -> list[Located]:
    """The steps of a file with one a line; ``#`` begins a comment.  Raises UsageError."""
    found = []
    for number, line in enumerate(text.decode(errors="surrogateescape").split("\n"), 1):
        where = f"{name}, line {number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from None
        if words:
            found.append((where, words))
    return found


def read_yaml(text: bytes, name: str) -> list[Located]:
    """The steps of a YAML list of one-key mappings.  Raises UsageError."""
    import yaml

    try:
        items = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: {str(error).replace(chr(10), ' ')}") from None
    if not isinstance(items, list):
        raise UsageError(f"{name}: not a list of steps", hint="- rm: /path")
    return [_item(item, f"{name}, step {number}") for number, item in enumerate(items, 1)]


def _item(item: Any, where: str) -> Located:
    if not isinstance(item, dict) or len(item) != 1:
        raise UsageError(f"{where}: not one command with its arguments", hint="- rm: /path")
    verb, value = next(iter(item.items()))
    if not isinstance(value, dict):
        values = value if isinstance(value, list) else [value]
        return where, [str(verb), *(_text(part, where) for part in values)]
    known = {name for one in _command(str(verb), where).params for name in one.opts}
    words, plain = [str(verb)], {}
    for key, one in value.items():
        parts = one if isinstance(one, list) else [one]
        option, join = (f"-{key}", "") if len(str(key)) == 1 else (f"--{key}", "=")
        if option not in known and key in _PLAIN:
            plain[key] = [_text(part, where) for part in parts]
        elif isinstance(one, bool):
            words += [option] if one else []
        else:
            words += [f"{option}{join}{_text(part, where)}" for part in parts]
    # A mapping has no order that anybody minds: the target of a link comes before its name.
    return where, [*words, "--", *(part for key in _PLAIN for part in plain.get(key, ()))]


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    # YAML reads 0644 as a number of another base, and yes as a truth.
    raise UsageError(f"{where}: {reprlib.repr(value)} is not text", hint="put it in quotes")


def steps_of(lines: Sequence[Located]) -> list[Step]:
    """The steps of all lines.  Raises UsageError that says where."""
    return [step for where, words in lines for step in _steps(where, words)]


class _Collector(Change):
    """Takes the steps that a command would run."""

    def __init__(self) -> None:
        from imgtools.cli.options import DiskArguments, Output
        from imgtools.workflow.changing import How

        super().__init__(DiskArguments(), Output(quiet=True), How(), ())
        self.steps: list[Step] = []

    def run(self, steps: Sequence[Step], command: str) -> int:  # noqa: ARG002
        self.steps += steps
        return 0


def _command(verb: str, where: str) -> click.Command:
    """A writing command without the options that name the guest, which all steps share."""
    from imgtools.cli.main import cli

    if verb not in KNOWN:
        raise UsageError(f"{where}: no such step: {verb}", hint=f"known: {', '.join(KNOWN)}")
    whole = cli.get_command(click.Context(cli), verb)
    assert whole is not None
    step = cast("Any", whole.callback).imgtools_step
    own = [one for one in whole.params if one.name not in step.shared]
    return click.Command(verb, params=own, callback=step.function)


def _steps(where: str, words: list[str]) -> Iterator[Step]:
    verb = words[0]
    parser = _command(verb, where)
    collector = _Collector()
    try:
        context = parser.make_context(verb, words[1:])
        if verb in ("write", "tar-in") and "-" in context.params["args"]:
            raise UsageError("a step cannot read stdin", hint="name a file")
        assert parser.callback is not None
        parser.callback(change=collector, **context.params)
    except click.ClickException as error:
        raise UsageError(f"{where}: {error.format_message()}") from None
    except ImgtoolsError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None
    except click.exceptions.Exit:
        raise UsageError(f"{where}: --help is no step") from None
    for step in collector.steps:
        yield _Located(where, step)


@dataclass(frozen=True, slots=True)
class _Located:
    """A step whose errors say where it stands."""

    where: str
    step: Step

    def idle(self, tree: GuestTree) -> bool:
        """As the step."""
        try:
            return self.step.idle(tree)
        except ImgtoolsError:
            # What an earlier step makes is not there yet: only doing them all tells.
            return False

    def perform(self, guest: GuestFiles) -> list[Done]:
        """As the step."""
        try:
            return self.step.perform(guest)
        except ImgtoolsError as error:
            raise type(error)(f"{self.where}: {error.message}", hint=error.hint) from error
