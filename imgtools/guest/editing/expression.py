"""``-e``: a Perl-style program that is run on every line, as virt-edit has it.

Statements, separated by ``;`` and run in order on each line ``$_``:

    s/PATTERN/REPLACEMENT/gimsx     also s{..}{..}, s|..|..|
    y/abc/xyz/  tr/a-z/A-Z/d        characters for characters
    $_ = "TEXT"   $_ .= "TEXT"      set, append; "" deletes the line
    $_ = "TEXT" . $_                put in front
    d                               delete the line, as sed has it
    die "MESSAGE"                   give up; the file stays as it is

each with ``if COND`` or ``unless COND`` behind it, or an address of sed's in front of it (``3``,
``$`` for the last line, ``/RE/``, ``2,5``, ``/A/,/B/``, ``!``).  A COND is ``/RE/``, ``!/RE/``,
``$lineno == 3`` (or ``$.``, with ``!= < <= > >=``), joined by ``&&`` and ``||`` from left to right.
Anything else of Perl is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.editing.patterns import compile_pattern, compile_replacement, literal

MAX_EXPRESSION = 1 << 16


@dataclass(slots=True)
class Line:
    """The line that is worked on, its 1-based number, and whether it is the last."""

    text: bytes
    number: int
    last: bool


Condition = Callable[[Line], bool]
Action = Callable[[Line], None]


@dataclass(slots=True)
class Program:
    """A parsed expression.  One program edits one file (ranges have a state)."""

    statements: list[tuple[Condition, Action]] = field(default_factory=list)

    def run(self, lines: Sequence[bytes]) -> list[bytes]:
        """The lines after the program; a line that became empty is gone."""
        result = []
        for number, text in enumerate(lines, 1):
            line = Line(text=text, number=number, last=number == len(lines))
            for condition, action in self.statements:
                if condition(line):
                    action(line)
            result.append(line.text)
        return result


def parse(expression: str) -> Program:
    """Parse ``-e``.  Raises UsageError that names what is not understood."""
    text = expression.encode("utf-8", errors="surrogateescape")
    if len(text) > MAX_EXPRESSION:
        raise UsageError("-e: the expression is too long")
    return Program(statements=_Parser(text).program())


class _Parser:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def program(self) -> list[tuple[Condition, Action]]:
        statements = []
        while True:
            self._skip(rb"[\s;]*")
            if self._at >= len(self._text):
                break
            statements.append(self._statement())
        if not statements:
            raise UsageError("-e: the expression is empty", hint="imgtools edit --help")
        return statements

    def _statement(self) -> tuple[Condition, Action]:
        condition = self._address()
        action = self._action()
        if word := self._skip(rb"\s*(if|unless)\b\s*"):
            found = self._condition()
            if b"unless" in word:
                found = _negated(found)
            condition = _both(condition, found) if condition else found
        self._skip(rb"\s*")
        if self._at < len(self._text) and not self._skip(rb";"):
            raise self._error("expected ; or the end")
        return condition or (lambda _: True), action

    # -- actions --------------------------------------------------------------------------------

    def _action(self) -> Action:
        if self._skip(rb"s(?=[^\w\s;])"):
            return self._substitution()
        if self._skip(rb"(?:y|tr)(?=[^\w\s;])"):
            return self._transliteration()
        if self._skip(rb"d\b"):
            return _delete
        if self._skip(rb"die\b\s*"):
            return self._die()
        if operator := self._skip(rb"\$_\s*(?:\.=|=(?![=~]))\s*"):
            return self._assignment(append=b".=" in operator)
        raise self._error("not understood")

    def _substitution(self) -> Action:
        where = f"-e {self._shown()}"
        pattern_text, delimiter = self._quoted_pair()
        replacement_text = self._second(delimiter)
        flags = self._flags("gimsxo")
        pattern = compile_pattern(pattern_text, flags, where)
        replacement = compile_replacement(replacement_text, pattern, where)
        count = 0 if "g" in flags else 1

        def act(line: Line) -> None:
            line.text = pattern.sub(replacement, line.text, count=count)

        return act

    def _transliteration(self) -> Action:
        where = f"-e {self._shown()}"
        source_text, delimiter = self._quoted_pair()
        source = _characters(source_text, where)
        target = _characters(self._second(delimiter), where)
        delete = "d" in self._flags("d")
        if not delete:
            target = target or source
            target += target[-1:] * (len(source) - len(target))
        table = bytearray(range(256))
        for old, new in reversed(list(zip(source, target, strict=False))):
            table[old] = new
        gone = bytes(set(source[len(target) :]) - set(source[: len(target)])) if delete else b""

        def act(line: Line) -> None:
            line.text = line.text.translate(bytes(table), gone)

        return act

    def _assignment(self, *, append: bool) -> Action:
        before, after, kept = b"", b"", append
        seen = append
        while True:
            if self._skip(rb"\$_\b"):
                if seen:
                    raise self._error("$_ twice")
                seen = kept = True
            elif kept:
                after += self._string()
            else:
                before += self._string()
            if not self._skip(rb"\s*\.\s*"):
                break

        def act(line: Line) -> None:
            line.text = before + (line.text if kept else b"") + after

        return act

    def _die(self) -> Action:
        message = b"died"
        if self._text[self._at : self._at + 1] in (b'"', b"'"):
            message = self._string()

        def act(line: Line) -> None:
            text = message.decode(errors="replace").strip()
            raise GuestOperationError(f"-e gave up at line {line.number}: {text}")

        return act

    # -- conditions -----------------------------------------------------------------------------

    def _address(self) -> Condition | None:
        first = self._line_address()
        if first is None:
            return None
        result = first
        if self._skip(rb"\s*,\s*"):
            last = self._line_address()
            if last is None:
                raise self._error("expected the end of the range")
            result = _range(first, last)
        if self._skip(rb"\s*!"):
            result = _negated(result)
        self._skip(rb"\s*")
        return result

    def _line_address(self) -> Condition | None:
        if number := self._skip(rb"\d+"):
            wanted = int(number)
            return lambda line: line.number == wanted
        if self._skip(rb"\$(?=[\s,!dsyt])"):
            return lambda line: line.last
        if self._text[self._at : self._at + 1] == b"/":
            return self._match(address=True)
        return None

    def _condition(self) -> Condition:
        result = self._term()
        while operator := self._skip(rb"\s*(?:&&|\|\||and\b|or\b)\s*"):
            other = self._term()
            join = _both if operator.strip() in (b"&&", b"and") else _either
            result = join(result, other)
        return result

    def _term(self) -> Condition:
        if self._skip(rb"(?:!|not\b)\s*"):
            return _negated(self._term())
        if operator := self._skip(rb"\$_\s*(?:=~|!~)\s*m?(?=[^\w\s])"):
            found = self._match()
            return _negated(found) if b"!~" in operator else found
        if comparison := self._skip(rb"\$(?:lineno|\.)\s*(?:==|!=|<=|>=|<|>)\s*\d+"):
            return _comparison(comparison)
        if self._skip(rb"m(?=[^\w\s])") or self._text[self._at : self._at + 1] == b"/":
            return self._match()
        raise self._error("condition not understood")

    def _match(self, *, address: bool = False) -> Condition:
        where = f"-e {self._shown()}"
        text, _ = self._quoted_pair()
        # Behind an address a command follows, so that sed has only one flag there.
        flags = self._skip(rb"[iI]?").decode().lower() if address else self._flags("imsx")
        pattern = compile_pattern(text, flags, where)
        return lambda line: pattern.search(line.text) is not None

    # -- pieces ---------------------------------------------------------------------------------

    def _quoted_pair(self) -> tuple[bytes, bytes]:
        """A text between delimiters, and the opening one."""
        opening = self._text[self._at : self._at + 1]
        self._at += 1
        return self._until(opening), opening

    def _second(self, opening: bytes) -> bytes:
        """The second text of s or y: after the first one's delimiter, or in brackets of its own."""
        if opening in _CLOSING:
            self._skip(rb"\s*")
            opening = self._text[self._at : self._at + 1]
            self._at += 1
        return self._until(opening)

    def _until(self, opening: bytes) -> bytes:
        closing = _CLOSING.get(opening, opening)
        out, depth = bytearray(), 0
        while self._at < len(self._text):
            character = self._text[self._at : self._at + 1]
            self._at += 1
            if character == b"\\" and self._at < len(self._text):
                following = self._text[self._at : self._at + 1]
                self._at += 1
                # An escaped delimiter is the character itself, but keeps its meaning of a literal.
                plain = (
                    following == closing and not following.isalnum() and following in b"/,#@%~!:;="
                )
                out += following if plain else b"\\" + following
                continue
            if character == closing and depth == 0:
                return bytes(out)
            if opening in _CLOSING:
                depth += (character == opening) - (character == closing)
            out += character
        raise self._error(f"no closing {closing.decode(errors='replace')}")

    def _string(self) -> bytes:
        where = f"-e {self._shown()}"
        quote = self._text[self._at : self._at + 1]
        if quote not in (b'"', b"'") or not quote:
            raise self._error("expected a string in quotes")
        self._at += 1
        text = self._until(quote)
        if quote == b"'":
            return re.sub(rb"\\([\\'])", rb"\1", text)
        return literal(text, where)

    def _flags(self, known: str) -> str:
        flags = self._skip(rb"\w*").decode(errors="replace")
        # "s/a/b/if ..." does not exist in Perl either: a space is needed.
        for flag in flags:
            if flag not in known:
                raise UsageError(f"-e: the flag {flag} of {self._shown_before()} is not supported")
        return flags

    def _skip(self, pattern: bytes) -> bytes:
        found = re.compile(pattern).match(self._text, self._at)
        if found is None:
            return b""
        self._at = found.end()
        return found[0]

    def _error(self, why: str) -> UsageError:
        return UsageError(
            f"-e: {why} at: {self._shown()}",
            hint='known are s///, y///, d, $_ = "..."; see imgtools edit --help',
        )

    def _shown(self) -> str:
        return self._text[self._at : self._at + 40].decode(errors="replace") or "the end"

    def _shown_before(self) -> str:
        return self._text[max(0, self._at - 30) : self._at].decode(errors="replace")


_CLOSING = {b"{": b"}", b"(": b")", b"[": b"]", b"<": b">"}


def _delete(line: Line) -> None:
    line.text = b""


def _characters(text: bytes, where: str) -> bytes:
    """The characters that one side of y/// lists, ranges written out."""
    plain = literal(text, where)
    out = bytearray()
    index = 0
    while index < len(plain):
        if index + 2 < len(plain) and plain[index + 1 : index + 2] == b"-":
            if plain[index] > plain[index + 2]:
                raise UsageError(f"{where}: a range runs backwards")
            out += bytes(range(plain[index], plain[index + 2] + 1))
            index += 3
        else:
            out.append(plain[index])
            index += 1
    return bytes(out)


def _comparison(text: bytes) -> Condition:
    found = re.search(rb"(==|!=|<=|>=|<|>)\s*(\d+)", text)
    assert found is not None
    operator, number = found[1], int(found[2])
    compare: dict[bytes, Callable[[int], bool]] = {
        b"==": lambda value: value == number,
        b"!=": lambda value: value != number,
        b"<=": lambda value: value <= number,
        b">=": lambda value: value >= number,
        b"<": lambda value: value < number,
        b">": lambda value: value > number,
    }
    return lambda line: compare[operator](line.number)


def _range(first: Condition, last: Condition) -> Condition:
    """sed's range: from a line that fits the first to the next one that fits the last."""
    inside = False

    def fits(line: Line) -> bool:
        nonlocal inside
        if inside:
            inside = not last(line)
            return True
        inside = first(line)
        return inside

    return fits


def _negated(condition: Condition) -> Condition:
    return lambda line: not condition(line)


def _both(one: Condition, other: Condition) -> Condition:
    return lambda line: one(line) and other(line)


def _either(one: Condition, other: Condition) -> Condition:
    return lambda line: one(line) or other(line)
