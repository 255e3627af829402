"""Read an expression piece by piece: quoted texts, strings, flags."""

from __future__ import annotations

import re

from imgtools.errors import UsageError
from imgtools.guest.editing.patterns import literal, string_parts

_HINT = 'known are s///, y///, d, $_ = "..."; see imgtools edit --help'
CLOSING = {b"{": b"}", b"(": b")", b"[": b"]", b"<": b">"}
# Delimiters that mean nothing in a regular expression: escaped, they stand for themselves.
_PLAIN = b'/,#@%~!:;=&-_"` '


class Scanner:
    """An expression and how far it is read.  Every error is a UsageError that shows the rest."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def _pattern(self) -> tuple[bytes, bytes]:
        """The pattern between delimiters, and the opening one."""
        if self._text[self._at : self._at + 1] == b"'":
            raise self._error("Perl sees no variables between ' and '", "use another delimiter")
        opening = self._opening()
        pattern = self._until(opening)
        if not pattern:
            raise self._error("empty pattern", "Perl takes the last one for it: write that")
        return pattern, opening

    def _opening(self) -> bytes:
        opening = self._text[self._at : self._at + 1]
        self._at += 1
        return opening

    def _second(self, opening: bytes) -> bytes:
        """The second text of s or y: after the first one's delimiter, or in brackets of its own."""
        if opening in CLOSING:
            self._skip(rb"\s*")
            opening = self._opening()
        return self._until(opening, pattern=False)

    def _until(self, opening: bytes, *, pattern: bool = True) -> bytes:
        closing = CLOSING.get(opening, opening)
        out, depth = bytearray(), 0
        while self._at < len(self._text):
            character = self._opening()
            if character == b"\\" and self._at < len(self._text):
                out += self._escaped(closing, pattern and opening not in CLOSING)
                continue
            if character == closing and depth == 0:
                return bytes(out)
            if opening in CLOSING:
                depth += (character == opening) - (character == closing)
            out += character
        raise self._error(f"no closing {closing.decode(errors='replace')}")

    def _escaped(self, closing: bytes, pattern: bool) -> bytes:
        """What stands behind a backslash: an escaped delimiter is the character itself."""
        following = self._opening()
        if following != closing or not pattern:
            return b"\\" + following
        if following not in _PLAIN:
            # Perl takes the backslash off, and what is left has its meaning: s|a\|b|| is a or b.
            shown = (b"\\" + following).decode(errors="replace")
            raise self._error(f"{shown} has another meaning in Perl", "use another delimiter")
        return following

    def _string(self) -> bytes:
        """A string in quotes that holds no variables."""
        where = self._where()
        quote, text = self._quoted()
        if quote == b"'":
            return re.sub(rb"\\([\\'])", rb"\1", text)
        return literal(text, where)

    def _string_parts(self) -> list[bytes | None]:
        """A string in quotes; None stands for ``$_`` in it."""
        where = self._where()
        quote, text = self._quoted()
        if quote == b"'":
            return [re.sub(rb"\\([\\'])", rb"\1", text)]
        return string_parts(text, where)

    def _quoted(self) -> tuple[bytes, bytes]:
        quote = self._text[self._at : self._at + 1]
        if quote not in (b'"', b"'"):
            raise self._error("expected a string in quotes")
        self._at += 1
        return quote, self._until(quote, pattern=False)

    def _flags(self, known: str) -> str:
        flags = self._skip(rb"\w*").decode(errors="replace")
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

    def _error(self, why: str, hint: str = _HINT) -> UsageError:
        return UsageError(f"-e: {why} at: {self._shown()}", hint=hint)

    def _where(self) -> str:
        return f"-e {self._shown()}"

    def _shown(self) -> str:
        return self._text[self._at : self._at + 40].decode(errors="replace") or "the end"

    def _shown_before(self) -> str:
        return self._text[max(0, self._at - 30) : self._at].decode(errors="replace")
