"""Perl's regular expressions and replacement texts, as far as one-line edits use them.

Source: perlre(1), perlop(1).  Python's ``re`` knows nearly the same language; what differs is
translated, and what it cannot do is refused rather than taken for something else.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

from imgtools.errors import UsageError

_CLASSES = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"lower": rb"a-z",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb"\s",
    b"upper": rb"A-Z",
    b"word": rb"\w",
    b"xdigit": rb"0-9A-Fa-f",
}
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
# Escapes that Python lacks or means otherwise, and those that a character class may hold.
_ESCAPES = {b"z": rb"\Z", b"Z": rb"(?=\n?\Z)", b"h": rb"[ \t]", b"R": rb"(?:\r\n|\n|\r)"}
_IN_CLASS = {b"h": rb" \t"}
_REFUSED = {b"K", b"G", b"X", b"p", b"P", b"N", b"H", b"L", b"U", b"E", b"l", b"u", b"o"}
_TOKEN = re.compile(
    rb"\\Q(?P<quoted>.*?)(?:\\E|\Z)|\\(?P<escape>.)|\[:(?P<posix>\^?\w+):\]"
    rb"|\(\?<(?P<name>[A-Za-z_]\w*)>|(?P<variable>\$[A-Za-z_{])",
    re.DOTALL,
)

Replacement = Callable[[re.Match[bytes]], bytes]


def compile_pattern(text: bytes, flags: str, where: str) -> re.Pattern[bytes]:
    """Compile a Perl pattern with its flags.  Raises UsageError, beginning with ``where``."""
    value = 0
    for flag in flags:
        value |= _FLAGS.get(flag, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what "[[" may mean one day
            return re.compile(_TOKEN.sub(lambda found: _translate(found, where), text), value)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: bad regular expression: {error}") from None


def _translate(found: re.Match[bytes], where: str) -> bytes:
    if found["quoted"] is not None:
        return re.escape(found["quoted"])
    if found["posix"] is not None:
        name = found["posix"]
        if name not in _CLASSES:
            raise UsageError(f"{where}: unknown character class [:{name.decode()}:]")
        if not _inside_class(found):
            raise UsageError(f"{where}: write [[:{name.decode()}:]], with two brackets")
        return _CLASSES[name]
    if found["name"] is not None:
        return b"(?P<" + found["name"] + b">"
    if found["variable"] is not None:
        raise UsageError(
            f"{where}: Perl variables in a pattern are not supported", hint=r"write \$ for a dollar"
        )
    letter: bytes = found["escape"]
    if letter in _REFUSED:
        raise UsageError(f"{where}: \\{letter.decode()} is not supported in a pattern")
    if letter in _ESCAPES:
        known = _IN_CLASS if _inside_class(found) else _ESCAPES
        if letter not in known:
            raise UsageError(f"{where}: \\{letter.decode()} is not supported in [...]")
        return known[letter]
    # Perl lets any sign be escaped, Python no letter that means nothing.
    return b"\\" + letter if letter.isalnum() or ord(letter) < 0x80 else letter


def _inside_class(found: re.Match[bytes]) -> bool:
    """True between ``[`` and ``]``."""
    before = re.sub(rb"\[:\^?\w+:\]|\\.", b"", found.string[: found.start()], flags=re.DOTALL)
    return before.rfind(b"[") > before.rfind(b"]")


# --- replacements ------------------------------------------------------------------------------

_PART = re.compile(
    rb"\$(?P<number>\d+)(?![\[{]|->)|\$\{(?P<braced>\w+)\}|(?P<whole>\$&)|\$\+\{(?P<name>\w+)\}"
    rb"|\\(?P<back>[1-9]\d?)|\\x(?P<hex>[0-9A-Fa-f]{1,2})|\\(?P<escape>.)"
    rb"|(?P<variable>\$.?)|(?P<plain>[^\\$]+|\\)",
    re.DOTALL,
)
_STRING = re.compile(rb"\$_(?!\w)|(?:\\.|\$(?!_(?!\w))|[^\\$])+", re.DOTALL)
_LITERAL = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"f": b"\f", b"a": b"\a", b"e": b"\x1b"}
_CASE = {b"U": bytes.upper, b"L": bytes.lower}
_NEXT = {b"u": bytes.upper, b"l": bytes.lower}
_NO_REPLACEMENT = {b"Q", b"F", b"N", b"c", b"o", b"x", *(b"%d" % digit for digit in range(10))}


def compile_replacement(text: bytes, pattern: re.Pattern[bytes], where: str) -> Replacement:
    """A function from a match to what replaces it.  Raises UsageError."""
    parts = [_part(found, pattern, where) for found in _PART.finditer(text)]

    def build(match: re.Match[bytes]) -> bytes:
        out, case, first = [], None, None
        for kind, value in parts:
            if kind == "case":
                case = _CASE.get(value)
                continue
            if kind == "next":
                first = _NEXT[value]
                continue
            piece = value if kind == "text" else match[_group(value)] or b""
            piece = case(piece) if case else piece
            if first and piece:
                piece, first = first(piece[:1]) + piece[1:], None
            out.append(piece)
        return b"".join(out)

    return build


def literal(text: bytes, where: str) -> bytes:
    """The text of a double-quoted string that holds no variables."""
    pattern = re.compile(b"")
    parts = [_part(found, pattern, where) for found in _PART.finditer(text)]
    if any(kind != "text" for kind, _ in parts):
        raise UsageError(f"{where}: variables in a string are not supported")
    return b"".join(value for _, value in parts)


def string_parts(text: bytes, where: str) -> list[bytes | None]:
    """A double-quoted string that may hold ``$_``, for which None stands."""
    pieces = _STRING.findall(text)
    return [None if piece == b"$_" else literal(piece, where) for piece in pieces]


def _part(found: re.Match[bytes], pattern: re.Pattern[bytes], where: str) -> tuple[str, bytes]:
    group = found["number"] or found["braced"] or found["name"] or found["back"]
    if found["whole"] is not None:
        group = b"0"
    if group is not None:
        _require_group(group, pattern, where)
        return "group", group
    if found["variable"] is not None:
        name = found["variable"].decode(errors="replace")
        raise UsageError(
            f"{where}: the variable {name}... is not supported here",
            hint=r"write \$ for a dollar, ${1} for a group before [ or {",
        )
    if found["hex"] is not None:
        return "text", bytes([int(found["hex"], 16)])
    letter = found["escape"]
    if letter is None:
        return "text", found["plain"]
    if letter in _NO_REPLACEMENT:
        raise UsageError(f"{where}: \\{letter.decode()} is not supported here")
    if letter in _CASE or letter == b"E":
        return "case", letter
    if letter in _NEXT:
        return "next", letter
    return "text", _LITERAL.get(letter, letter)


def _require_group(group: bytes, pattern: re.Pattern[bytes], where: str) -> None:
    known = (
        int(group) <= pattern.groups if group.isdigit() else group.decode() in pattern.groupindex
    )
    if not known:
        raise UsageError(f"{where}: the pattern has no group {group.decode()}")


def _group(value: bytes) -> int | str:
    return int(value) if value.isdigit() else value.decode()
