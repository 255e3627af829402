"""Kinds of words that the verbs of ``imgtools image`` take: formats, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from imgtools.errors import UsageError
from imgtools.image.target import WRITABLE
from imgtools.model.disks import KNOWN_FORMATS, READ_ONLY_FORMATS, UNFILED_FORMATS

if TYPE_CHECKING:
    _Text = click.ParamType[str]
    _Type = click.ParamType[object]
else:  # generic since click 8.5
    _Text = _Type = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

ALIASES = {"vhd": "vpc", "fat": "vvfat"}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([bkmgtpe]?)", re.ASCII | re.IGNORECASE)
_LIMIT = 1 << 63
_HINT = "bytes, or a number with k, M, G, T, P or E (powers of 1024)"


class Format(_Text):
    """An image format by qemu's name, one of those given; vhd means vpc."""

    name = "format"

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "FMT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = ALIASES.get(value, str(value))
        if found not in self._known:
            self.fail(f"{value}: {self._why_not(found)}", param, ctx)
        return found

    def _why_not(self, name: str) -> str:
        known = ", ".join(self._known)
        if self._known == WRITABLE and name in (*READ_ONLY_FORMATS, *UNFILED_FORMATS):
            return f"qemu-img only reads it; it can write {known}"
        if name in UNFILED_FORMATS:
            return f"is no image file, which this command needs; known: {known}"
        return f"unknown image format; known: {known}"


IMAGE = Format(KNOWN_FORMATS)
SOURCE = Format((*KNOWN_FORMATS, *UNFILED_FORMATS))
"""Of what is only read as a disk, which need be no image file."""
TARGET = Format(WRITABLE)


def format_option(
    *names: str,
    help: str,  # noqa: A002 (click's word)
    kind: Format = IMAGE,
    required: bool = False,
) -> Callable[[F], F]:
    """An option that takes a format by qemu's name."""
    return click.option(*names, type=kind, required=required, help=help)


class Size(_Type):
    """A size in bytes, not less than ``least``, and less than 2^63.

    With ``relative`` a sign in front makes it a difference; the value is (sign or "", bytes).
    """

    name = "size"

    def __init__(self, *, least: int = 1, relative: bool = False) -> None:
        self._least = least
        self._relative = relative

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:  # noqa: ARG002
        return "SIZE" if isinstance(param, click.Option) else None

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse the word; a default passes as it is."""
        if not isinstance(value, str):
            return value
        sign = value[:1] if self._relative and value[:1] in ("+", "-") else ""
        if value[:1] == "-" and not sign:
            self.fail(f"{value}: a size is not negative", param, ctx)
        found = _SIZE.fullmatch(value[len(sign) :])
        if found is None:
            self.fail(f"{value}: no size: {_HINT}", param, ctx)
        from fractions import Fraction  # which takes its time to load

        power = " kmgtpe".find(found[2].lower() or " ")
        exact = Fraction(found[1]) * 1024 ** max(0, power)
        if exact.denominator != 1:
            self.fail(f"{value}: is no whole number of bytes", param, ctx)
        size = int(exact)
        if size >= _LIMIT:
            self.fail(f"{value}: is 2^63 bytes or more, which nothing can hold", param, ctx)
        if size < self._least:
            self.fail(f"{value}: must be {_at_least(self._least)}", param, ctx)
        return (sign, size) if self._relative else size


def _at_least(least: int) -> str:
    return "more than 0" if least == 1 else f"at least {least}"


class LocalFile(_Type):
    """A file or block device of this host as a path; a ``file://`` URI is one, no other URI is."""

    name = "file"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "FILE"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> object:
        """Refuse what is not here."""
        return local_path(value) if isinstance(value, str) else value


def local_path(word: str) -> Path:
    """The path of a file of this host.  Raises UsageError for the URI of something else."""
    from imgtools.cli.options import make_request

    path = make_request(word).path
    if path is None:
        from imgtools.appliance.remote import shown

        raise UsageError(f"{shown(word)}: is not a file of this host", hint="copy it here first")
    return path


class SizeCommand(click.Command):
    """A command whose last word may be a size with a minus, which is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move such a word behind ``--``."""
        if "--" not in args:
            minus = [word for word in args if re.match(r"-[0-9]", word)]
            if minus:
                args = [*(word for word in args if word not in minus), "--", *minus]
        return super().parse_args(ctx, args)
