"""A group of commands whose modules are imported when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from imgtools.errors import UsageError


class LazyGroup(click.Group):
    """Imports a command's module when it is named (or when the group's help is shown)."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._modules and not ctx.resilient_parsing:
            raise _unknown(args[0], self._modules, ctx.command_path)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would make exit 1 of it.
            raise ReaderGoneError from error


class ReaderGoneError(Exception):
    """Whoever read our output (head, less) has gone."""


def _unknown(name: str, modules: Mapping[str, str], program: str) -> UsageError:
    import difflib

    close = difflib.get_close_matches(name.removeprefix("virt-"), modules, n=3, cutoff=0.6)
    question = f": did you mean {' or '.join(close)}?" if close else ""
    return UsageError(f"no such command: {name}{question}", hint=f"try: {program} --help")
