"""Sizes on the command lines of ``imgtools image``: suffixes are powers of 1024, as qemu-img's."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _Type = click.ParamType[object]
else:  # generic since click 8.5
    _Type = click.ParamType

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([bkmgtpe]?)", re.ASCII | re.IGNORECASE)
_LIMIT = 1 << 63
_HINT = "bytes, or a number with k, M, G, T, P or E (powers of 1024)"


class Size(_Type):
    """A size in bytes: more than 0 (or at least 0 with ``zero``), less than 2^63.

    With ``relative`` a sign in front makes it a difference; the value is (sign or "", bytes).
    """

    name = "size"

    def __init__(self, *, zero: bool = False, relative: bool = False) -> None:
        self._zero = zero
        self._relative = relative

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
        power = " kmgtpe".find(found[2].lower() or " ")
        exact = Fraction(found[1]) * 1024 ** max(0, power)
        if exact.denominator != 1:
            self.fail(f"{value}: is no whole number of bytes", param, ctx)
        size = int(exact)
        if size >= _LIMIT:
            self.fail(f"{value}: is 2^63 bytes or more, which nothing can hold", param, ctx)
        if size == 0 and not self._zero:
            self.fail(f"{value}: must be more than 0", param, ctx)
        return (sign, size) if self._relative else size


class SizeCommand(click.Command):
    """A command whose last word may be a size with a minus, which is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move such a word behind ``--``."""
        if "--" not in args:
            minus = [word for word in args if re.match(r"-[0-9]", word)]
            if minus:
                args = [*(word for word in args if word not in minus), "--", *minus]
        return super().parse_args(ctx, args)
