"""Kinds of words that the verbs of ``imgtools image`` take: formats, sizes, keys."""

from __future__ import annotations

from typing import Any

import click

from imgtools.errors import UsageError

ALIASES = {"vhd": "vpc"}
MAX_KEY = 8 << 20  # bytes, as for --key


class Format(click.ParamType[str]):
    """An image format by qemu's name, one of those given; vhd means vpc."""

    name = "format"

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "FMT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = ALIASES.get(value, str(value))
        if found not in self._known:
            self.fail(f"{value}: not one of {', '.join(self._known)}", param, ctx)
        return found


class Size(click.ParamType[int]):
    """Bytes, with K, M, G, T for powers of 1024; not less than ``least``."""

    name = "size"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from imgtools.cli.changing import parse_size

        try:
            size = value if isinstance(value, int) else parse_size(value)
        except UsageError as error:
            self.fail(
                f"{error.message} ({error.hint})" if error.hint else error.message, param, ctx
            )
        if size < self._least:
            self.fail(f"{value}: at least {self._least}", param, ctx)
        return size
