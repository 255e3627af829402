"""Unified diffs: applying one to the old text gives the new one, at any size and in any bytes."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtools.guest.compare import compare_trees, text_diff
from imgtools.guest.text_diff import MAX_LINES, MAX_SIZE, NO_NEWLINE
from imgtools.guest.tree import GuestTree, Mount
from tests.unit.memory_tree import MemoryTree

pytestmark = pytest.mark.unit


def diff(before: object, after: object, name: bytes = b"f", **options: int) -> list[str] | None:
    def guest(content: object) -> GuestTree:
        tree = {} if content is None else {name: content}
        return GuestTree([Mount(b"/", "/dev/sda", MemoryTree(tree))])

    old, new = guest(before), guest(after)
    (change,) = compare_trees(old, new)
    return text_diff(old, new, change, **options)


def apply(before: bytes, lines: list[str]) -> bytes:
    """What patch(1) would make of ``before``; every context line must fit."""
    source = before.decode().splitlines(keepends=True)
    result: list[str] = []
    position, mark = 0, ""
    for line in lines[2:]:
        if header := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", line):
            start = int(header[1]) - (header[2] != "0")
            result += source[position:start]
            position = start
        elif line == NO_NEWLINE:
            result[-1:] = [result[-1].removesuffix("\n")] if mark != "-" else result[-1:]
        else:
            mark, text = line[0], line[1:]
            if mark in " -":
                assert source[position].removesuffix("\n") == text
                position += 1
            if mark in " +":
                result.append(text + "\n")
    return "".join(result + source[position:]).encode()


def test_the_usual_form() -> None:
    assert diff(b"a\nb\nc\nd\ne\n", b"a\nb\nX\nd\ne\n", context=1) == [
        "--- a/f", "+++ b/f", "@@ -2,3 +2,3 @@", " b", "-c", "+X", " d",
    ]  # fmt: skip
    assert diff(None, b"new\n") == ["--- /dev/null", "+++ b/f", "@@ -0,0 +1 @@", "+new"]
    assert diff(b"old", None) == [
        "--- a/f", "+++ /dev/null", "@@ -1 +0,0 @@", "-old", NO_NEWLINE,
    ]  # fmt: skip


def test_what_is_no_short_text_has_none() -> None:
    assert diff(b"a\0b", b"text") is None
    assert diff(b"text", b"a\0b") is None
    assert diff(b"x" * (MAX_SIZE + 1), b"") is None
    assert diff(b"12345", b"1234", max_size=4) is None
    assert diff("link", "other") is None
    assert diff({}, None) is None
    assert diff(b"text", "link") is None


def test_nothing_acts_on_a_terminal() -> None:
    found = diff(b"\x1b[2J\tx\r\n", b"\xff\xe2\x80\xae\n", b"a\nb\x1b\xfe")
    assert found == [
        "--- a/a\\x0ab\\x1b\\xfe", "+++ b/a\\x0ab\\x1b\\xfe", "@@ -1 +1 @@",
        "-\\x1b[2J\tx\\x0d", "+\\xff\\u202e",
    ]  # fmt: skip


texts = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12).map("\n".join)


@given(texts, texts, st.integers(0, 3))
def test_applying_it_gives_the_new_text(before: str, after: str, context: int) -> None:
    if before == after:
        return
    lines = diff(before.encode(), after.encode(), context=context)
    assert lines is not None
    assert apply(before.encode(), lines) == after.encode()


@pytest.mark.parametrize("kinds", [2, 60, 10**6])
def test_hostile_texts_take_a_moment(kinds: int) -> None:
    numbers = random.Random(kinds)
    before = b"".join(b"%d\n" % numbers.randrange(kinds) for _ in range(100_000))
    after = b"".join(b"%d\n" % numbers.randrange(kinds) for _ in range(100_000))
    small = before.split(b"\n", MAX_LINES)[:-1], after.split(b"\n", MAX_LINES)[:-1]
    for one, other in ((before, after), (b"\n".join(small[0]), b"\n".join(small[1]))):
        start = time.monotonic()
        lines = diff(one, other)
        assert time.monotonic() - start < 20
        assert lines is not None
        assert apply(one, lines) == other


@pytest.mark.parametrize(
    ("name", "line", "shown"),
    [
        (b"shadow", b"root:$y$j9T$ab/c$d.e:19000::::::", "root:$y$(hidden):19000::::::"),
        (b"shadow-", b"root:!$6$salt$a.b:1::::::", "root:!$6$(hidden):1::::::"),
        (b"passwd", b"old:ab1.defghijkl:0:0:Administrator:/:/bin/sh",
         "old:(hidden):0:0:Administrator:/:/bin/sh"),
        (b"opasswd", b"bob:1000:2:$5$a$b,$6$c$d", "bob:1000:2:$5$(hidden),$6$(hidden)"),
        (b"shadow", b"daemon:!*:19000::::::", "daemon:!*:19000::::::"),
        (b"notes", b"root:$y$j9T$ab/c$d.e:19000::::::", "root:$y$j9T$ab/c$d.e:19000::::::"),
    ],
)  # fmt: skip
def test_hashes_of_passwords_are_hidden(name: bytes, line: bytes, shown: str) -> None:
    lines = diff(b"", line + b"\n", name)
    assert lines is not None
    assert lines[3:] == [f"+{shown}"]
    assert (diff(line + b"\n", b"", name) or [])[3:] == [f"-{shown}"]


def test_private_keys_are_hidden() -> None:
    text = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5v\n# note\n"
    lines = diff(None, text)
    assert lines is not None
    assert lines[3:] == ["+-----BEGIN OPENSSH PRIVATE KEY-----", "+(hidden)", "+# note"]
    assert diff(None, text.replace(b"PRIVATE", b"PUBLIC"))[4] == "+b3BlbnNzaC1rZXktdjEAAAAABG5v"  # type: ignore[index]
