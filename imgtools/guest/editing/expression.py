"""``-e``: a Perl-style program that is run on every line, as virt-edit has it.

Statements, separated by ``;`` and run in order on each line ``$_``:

    s/PATTERN/REPLACEMENT/gimsx     also s{..}{..}, s|..|..|
    y/abc/xyz/  tr/a-z/A-Z/d        characters for characters
    $_ = "TEXT"   $_ .= "TEXT"      set, append; "" deletes the line
    $_ = "TEXT" . $_   "TEXT$_"     put in front
    d                               delete the line and go on with the next, as sed has it
    die "MESSAGE"                   give up; the file stays as it is

each with ``if COND`` or ``unless COND`` behind it, or an address of sed's in front of it (``3``,
``$`` for the last line, ``/RE/``, ``2,5``, ``/A/,/B/``, ``!``).  A COND is ``/RE/``, ``!/RE/``,
``$lineno == 3`` (or ``$.``, with ``!= < <= > >=``), joined by ``&& || ! and or not`` and brackets.
Anything else of Perl is refused.  Text is bytes, as in virt-edit; ``@`` is no array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.editing.patterns import compile_pattern, compile_replacement
from imgtools.guest.editing.scanner import Scanner
from imgtools.guest.editing.transliteration import deleted_and_table

MAX_EXPRESSION = 1 << 16
_NAMES_ENDINGS = re.compile(rb"\r|\\[rR]|\\x\{?0*[dD]\b|\\015")


@dataclass(slots=True)
class Line:
    """The line that is worked on, its 1-based number, whether it is the last, or deleted."""

    text: bytes
    number: int
    last: bool
    deleted: bool = False


Condition = Callable[[Line], bool]
Action = Callable[[Line], None]


@dataclass(slots=True)
class Program:
    """A parsed expression.  One program edits one file (ranges have a state).

    ``endings``: it names a carriage return, and so wants to see line endings as they are.
    """

    statements: list[tuple[Condition, Action]] = field(default_factory=list)
    endings: bool = False

    def run(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """One text for each line: what the program made of it, empty for one that is gone."""
        source = iter(lines)
        text = next(source, None)
        number = 0
        while text is not None:
            following = next(source, None)
            number += 1
            line = Line(text=text, number=number, last=following is None)
            for condition, action in self.statements:
                if condition(line):
                    action(line)
                    if line.deleted:
                        break
            yield line.text
            text = following


def parse(expression: str) -> Program:
    """Parse ``-e``.  Raises UsageError that names what is not understood."""
    text = expression.encode("utf-8", errors="surrogateescape")
    if len(text) > MAX_EXPRESSION:
        raise UsageError("-e: the expression is too long")
    endings = _NAMES_ENDINGS.search(text) is not None
    return Program(statements=_Parser(text).program(), endings=endings)


class _Parser(Scanner):
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
        where = self._where()
        pattern_text, delimiter = self._pattern()
        replacement_text = self._second(delimiter)
        flags = self._flags("gimsxo")
        pattern = compile_pattern(pattern_text, flags, where)
        replacement = compile_replacement(replacement_text, pattern, where)
        count = 0 if "g" in flags else 1

        def act(line: Line) -> None:
            line.text = pattern.sub(replacement, line.text, count=count)

        return act

    def _transliteration(self) -> Action:
        where = self._where()
        source, delimiter = self._pattern()
        target = self._second(delimiter)
        gone, table = deleted_and_table(source, target, self._flags("d") != "", where)

        def act(line: Line) -> None:
            line.text = line.text.translate(table, gone)

        return act

    def _assignment(self, *, append: bool) -> Action:
        parts: list[bytes | None] = [None] if append else []
        while True:
            parts += [None] if self._skip(rb"\$_\b") else self._string_parts()
            if not self._skip(rb"\s*\.\s*"):
                break

        def act(line: Line) -> None:
            line.text = b"".join(line.text if part is None else part for part in parts)

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
            end = int(number) if (number := self._skip(rb"\d+")) else None
            last = self._line_address() if end is None else None
            if end is None and last is None:
                raise self._error("expected the end of the range")
            result = _range(first, last, end)
        if self._skip(rb"\s*!"):
            result = _negated(result)
        self._skip(rb"\s*")
        return result

    def _line_address(self) -> Condition | None:
        if number := self._skip(rb"\d+"):
            return self._number(number)
        if self._skip(rb"\$(?=[\s,!dsyt])"):
            return lambda line: line.last
        if self._text[self._at : self._at + 1] == b"/":
            return self._match(address=True)
        return None

    def _condition(self, level: int = 0) -> Condition:
        """Perl's precedence, from what binds least; ``not`` binds less than ``||``."""
        if level == len(_JOINS):
            return self._term()
        if level == _NOT and self._skip(rb"not\b\s*"):
            return _negated(self._condition(_NOT))
        operator, join = _JOINS[level]
        result = self._condition(level + 1)
        while self._skip(operator):
            result = join(result, self._condition(level + 1))
        return result

    def _term(self) -> Condition:
        if self._skip(rb"!\s*"):
            return _negated(self._term())
        if self._skip(rb"\(\s*"):
            inner = self._condition()
            if not self._skip(rb"\s*\)"):
                raise self._error("no closing )")
            return inner
        if operator := self._skip(rb"\$_\s*(?:=~|!~)\s*m?(?=[^\w\s])"):
            found = self._match()
            return _negated(found) if b"!~" in operator else found
        if comparison := self._skip(rb"\$(?:lineno|\.)\s*(?:==|!=|<=|>=|<|>)\s*\d+"):
            return _comparison(comparison)
        if self._skip(rb"m(?=[^\w\s])") or self._text[self._at : self._at + 1] == b"/":
            return self._match()
        raise self._error("condition not understood")

    def _match(self, *, address: bool = False) -> Condition:
        where = self._where()
        text, _ = self._pattern()
        # Behind an address a command follows, so that sed has only one flag there.
        flags = self._skip(rb"[iI]?").decode().lower() if address else self._flags("imsx")
        pattern = compile_pattern(text, flags, where)
        return lambda line: pattern.search(line.text) is not None

    def _number(self, digits: bytes) -> Condition:
        wanted = int(digits)
        if wanted == 0:
            raise self._error("lines are counted from 1, address 0")
        return lambda line: line.number == wanted


def _delete(line: Line) -> None:
    line.text, line.deleted = b"", True


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


def _range(first: Condition, last: Condition | None, end: int | None) -> Condition:
    """sed's range: from a line that fits the first to the next one that fits the last.

    A range to a line number that has passed already is one line.
    """
    inside = False

    def fits(line: Line) -> bool:
        nonlocal inside
        if inside:
            if end is not None:
                inside = line.number < end
                return line.number <= end
            assert last is not None
            inside = not last(line)
            return True
        fits_first = first(line)
        inside = fits_first and (end is None or line.number < end)
        return fits_first

    return fits


def _negated(condition: Condition) -> Condition:
    return lambda line: not condition(line)


def _both(one: Condition, other: Condition) -> Condition:
    return lambda line: one(line) and other(line)


def _either(one: Condition, other: Condition) -> Condition:
    return lambda line: one(line) or other(line)


_JOINS = (
    (rb"\s*or\b\s*", _either),
    (rb"\s*and\b\s*", _both),
    (rb"\s*\|\|\s*", _either),
    (rb"\s*&&\s*", _both),
)
_NOT = 2
