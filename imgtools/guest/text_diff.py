"""A unified diff of one text file of a guest, within bounds that a hostile file cannot stretch.

difflib takes time that grows with the square of what differs, so that lines which both sides
share at their ends are cut off first, and what is left beyond `MAX_LINES` is shown as replaced
whole: longer, but as true.
"""

from __future__ import annotations

import difflib
import re
import stat as _stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from imgtools.guest.tree import GuestTree

if TYPE_CHECKING:
    from imgtools.guest.compare import Change
    from imgtools.model.files import Stat

MAX_SIZE = 1 << 20
MAX_LINES = 2000
NO_NEWLINE = "\\ No newline at end of file"

_ACCOUNTS = [
    name + end for name in (b"passwd", b"shadow", b"group", b"gshadow") for end in (b"", b"-")
]
_ACCOUNTS += [b"opasswd"]
# The methods of crypt(5); DES, the oldest, has no mark and is told by its length.
_HASH = re.compile(rb"(\$[0-9a-z-]+\$)[^:,\s]+|^([^:]*:[!*]*)[./0-9A-Za-z]{13}(?=:)")
_BASE64 = re.compile(rb"^[0-9A-Za-z+/=]{16,}(?=\r?$)")

_Opcode = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]

# Controls, and the bidirectional overrides that make one text look like another; a tab may stay.
_UNSAFE = [*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0), 0x200E, 0x200F]
_UNSAFE += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {n: f"\\x{n:02x}" if n < 0x100 else f"\\u{n:04x}" for n in _UNSAFE}


def text_diff(
    old: GuestTree,
    new: GuestTree,
    change: Change,
    *,
    max_size: int = MAX_SIZE,
    context: int = 3,
) -> list[str] | None:
    r"""The lines of a unified diff of what ``change`` did to the content of a regular file.

    None when there is nothing of the kind to show: no regular file, one of more than
    ``max_size`` bytes, or one with a NUL byte.  Lines carry no newline and are safe for a
    terminal: bytes that are not UTF-8 and control characters appear as ``\xNN``.  What would let
    the reader of a log in, or guess, is ``(hidden)``: hashes of passwords and private keys.
    """
    before = _content(old, change.path, change.before, max_size)
    after = _content(new, change.path, change.after, max_size)
    if before is None or after is None:
        return None
    name = visible(change.path)
    hide = _hiding(change.path, before + after)
    hunks = list(_hunks(_lines(before), _lines(after), context, hide))
    if not hunks:
        return []
    return [
        "--- " + (f"a{name}" if change.before is not None else "/dev/null"),
        "+++ " + (f"b{name}" if change.after is not None else "/dev/null"),
        *hunks,
    ]


def visible(raw: bytes) -> str:
    """Text in which nothing can act on a terminal."""
    return raw.decode("utf-8", errors="backslashreplace").translate(_VISIBLE)


def _content(tree: GuestTree, path: bytes, found: Stat | None, limit: int) -> bytes | None:
    """The text of a file, empty for one that is not there, None for what is no short text."""
    if found is None:
        return b""
    if not _stat.S_ISREG(found.mode) or found.size > limit:
        return None
    data = tree.read(path, limit=limit)
    return None if b"\0" in data else data


def _lines(data: bytes) -> list[bytes]:
    """Lines with their newline, which only the last one may lack."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _hiding(path: bytes, content: bytes) -> Callable[[bytes], bytes]:
    """What takes the secrets out of a line of the file ``path``."""
    if path.rpartition(b"/")[2] in _ACCOUNTS:
        return lambda line: _HASH.sub(rb"\1\2(hidden)", line)
    if b" PRIVATE KEY-----" in content:
        return lambda line: _BASE64.sub(rb"(hidden)", line)
    return lambda line: line


def _hunks(
    before: list[bytes], after: list[bytes], context: int, hide: Callable[[bytes], bytes]
) -> Iterator[str]:
    for group in _Solved(_opcodes(before, after)).get_grouped_opcodes(context):
        first, last = group[0], group[-1]
        spans = _span(first[1], last[2]), _span(first[3], last[4])
        yield f"@@ -{spans[0]} +{spans[1]} @@"
        for word, start, end, other_start, other_end in group:
            if word == "equal":
                yield from _marked(" ", map(hide, before[start:end]))
                continue
            yield from _marked("-", map(hide, before[start:end]))
            yield from _marked("+", map(hide, after[other_start:other_end]))


class _Solved(difflib.SequenceMatcher[bytes]):
    """difflib's grouping into hunks, over opcodes that are known already."""

    def __init__(self, codes: list[_Opcode]) -> None:
        super().__init__(None, [], [])
        self._codes = codes

    def get_opcodes(self) -> list[_Opcode]:
        """The opcodes given."""
        return self._codes


def _opcodes(before: list[bytes], after: list[bytes]) -> list[_Opcode]:
    """How to get from one to the other, as difflib's opcodes, in bounded time."""
    head = _common(before, after)
    shortest = min(len(before), len(after)) - head
    tail = _common(before[: -shortest - 1 : -1], after[: -shortest - 1 : -1]) if shortest else 0
    ends = len(before) - tail, len(after) - tail
    middle, other = before[head : ends[0]], after[head : ends[1]]
    codes: list[_Opcode] = [("equal", 0, head, 0, head)] if head else []
    if max(len(middle), len(other)) > MAX_LINES:
        codes.append(("replace", head, ends[0], head, ends[1]))
    elif middle or other:
        found = difflib.SequenceMatcher(None, middle, other).get_opcodes()
        codes += [(w, a + head, b + head, c + head, d + head) for w, a, b, c, d in found]
    if tail:
        codes.append(("equal", ends[0], len(before), ends[1], len(after)))
    return codes if middle or other else []


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """How many lines both begin with."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _span(start: int, end: int) -> str:
    """A range of lines as unified diffs write it: counted from 1, or after which line if empty."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + (1 if length else 0)},{length}"


def _marked(mark: str, lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        yield mark + visible(line.removesuffix(b"\n"))
        if not line.endswith(b"\n"):
            yield NO_NEWLINE
