"""Several expressions as one transformation of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imgtools.guest.editing.expression import parse
from imgtools.guest.editing.lines import edit_lines


def by_expressions(expressions: Sequence[str]) -> Callable[[bytes, bytes], bytes]:
    """What `steps.Edit` takes: run the expressions on the content, one after the other.

    Raises UsageError for a mistake in one, before anything is locked.
    """
    for expression in expressions:
        parse(expression)

    def transform(_path: bytes, content: bytes) -> bytes:
        for expression in expressions:
            content = edit_lines(content, parse(expression))
        return content

    return transform
