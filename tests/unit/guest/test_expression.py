"""``-e``: every form does what it says, and what is not known is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.errors import GuestOperationError, UsageError
from imgtools.guest.editing.expression import parse
from imgtools.guest.editing.lines import check_text, edit_lines, restore_endings
from tests.unit.guest.expressions import OURS, PERL, REFUSED

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("expression", "before", "after"), PERL + OURS)
def test_what_it_makes_of_a_text(expression: str, before: bytes, after: bytes) -> None:
    assert edit_lines(before, parse(expression)) == after


@pytest.mark.parametrize(("expression", "why"), REFUSED)
def test_what_is_not_known_is_refused(expression: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(expression)
    assert refused.value.message.startswith("-e")
    assert why in refused.value.message
    assert "\n" not in refused.value.message


def test_die_gives_up_with_line_and_text() -> None:
    program = parse(r'die "not so\n" if /two/')
    with pytest.raises(GuestOperationError, match=r"-e gave up at line 2: not so$"):
        edit_lines(b"one\ntwo\n", program)
    assert edit_lines(b"one\n", parse("die if /two/")) == b"one\n"


def test_a_byte_that_is_no_utf8_can_be_named() -> None:
    # As the command line gives it: surrogate escapes.
    expression = b"s/\xe9/e/".decode("utf-8", "surrogateescape")
    assert edit_lines(b"caf\xe9\n", parse(expression)) == b"cafe\n"


@given(st.binary(max_size=200).map(lambda text: text.replace(b"a", b"\r\n")))
def test_what_is_not_edited_stays(content: bytes) -> None:
    assert edit_lines(content, parse("s/NEVER THERE/x/")) == content
    assert edit_lines(content, parse(r"s/NEVER \r/x/")) == content


@given(st.text(max_size=30))
def test_no_expression_fails_but_by_its_own_error(expression: str) -> None:
    try:
        edit_lines(b"some\ntext\r\n", parse(expression))
    except (UsageError, GuestOperationError):
        return


@given(st.lists(st.sampled_from([*r"s/y|d$_='\"{}()[]!,;^.*+?a1 \n\Q\E", "$1", "if ", "&&"])))
def test_no_mixture_of_its_signs_fails_but_by_its_own_error(words: list[str]) -> None:
    try:
        edit_lines(b"some\ntext\r\n", parse("".join(words)))
    except (UsageError, GuestOperationError):
        return


def test_what_is_no_text() -> None:
    check_text("/etc/hosts", b"\xff\xfe no NUL in it")
    with pytest.raises(GuestOperationError, match="binary file") as refused:
        check_text("/bin/ls", b"\x7fELF\0")
    assert "imgtools write --from" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("before", "edited", "after"),
    [
        (b"a\r\nb\r\n", b"a\nc\n", b"a\r\nc\r\n"),
        (b"a\r\nb", b"a\nc", b"a\r\nc"),
        (b"a\r\nb\r\n", b"a\r\nc\n", b"a\r\nc\n"),  # the editor knew what it did
        (b"a\r\nb\n", b"a\nb\n", b"a\nb\n"),
        (b"a\nb\n", b"c\n", b"c\n"),
        (b"", b"a\n", b"a\n"),
        (b"a", b"b\n", b"b\n"),
    ],
)
def test_an_editor_s_endings(before: bytes, edited: bytes, after: bytes) -> None:
    assert restore_endings(before, edited) == after
