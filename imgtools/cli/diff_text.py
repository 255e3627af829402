"""Lines of ``imgtools diff``: virt-diff's (diff/diff.c), and the facts below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from imgtools.cli.listing import LineFormat, long_line
from imgtools.cli.render import csv_field, safe_text
from imgtools.workflow.diff import Difference, Side
from imgtools.workflow.facts import FactChange
from imgtools.workflow.ls import Entry

_IN_CONTENT = {"content", "size", "times"}  # new content moves the time anyway
_HEADINGS = {
    "system": "System",
    "package": "Packages",
    "user": "Users who can log in",
    "service": "Services",
    "kernel": "Kernels",
}


def lines_of(
    found: Difference, form: LineFormat, show: Callable[[bytes], bytes]
) -> Iterator[bytes]:
    """What virt-diff prints for one path: ``-``, ``+`` or ``=``, and ``#`` for metadata."""
    words = set(found.change.differences)
    if "content" in words or found.change.kind != "modified":
        mark = {"added": b"+", "removed": b"-", "modified": b"="}[found.change.kind]
        yield _line(mark, found, found.before or found.after, form, show)
        if found.text is not None and not form.csv:
            yield from (line.encode() for line in found.text[2:])
            yield b"@@ End of diff @@"
        words -= _IN_CONTENT
    if words:
        yield _line(b"-", found, found.before, form, show)
        yield _line(b"+", found, found.after, form, show)
        changed = [b"#", b"changed:", *(name.encode() for name in _field_names(found, form))]
        yield (b"," if form.csv else b" ").join(changed)


def _line(
    mark: bytes,
    found: Difference,
    side: Side | None,
    form: LineFormat,
    show: Callable[[bytes], bytes],
) -> bytes:
    assert side is not None
    entry = Entry(
        name=found.change.path,
        stat=side.stat,
        target=side.target,
        checksum=side.checksum,
        device=side.device,
    )
    words = [mark, long_line(entry, form, show)]
    for name, value in side.xattrs:
        words += [_printable(name), _printable(value)]
    if form.csv:
        words[2:] = [csv_field(word) for word in words[2:]]
    return (b"," if form.csv else b" ").join(words)


def _printable(value: bytes) -> bytes:
    r"""virt-diff's form of a binary value: what is no printable ASCII as ``\xNN``."""
    return b"".join(b"%c" % byte if 0x20 <= byte < 0x7F else b"\\x%02x" % byte for byte in value)


def _field_names(found: Difference, form: LineFormat) -> list[str]:
    """virt-diff's names of what differs, in its order."""
    before, after = found.change.before, found.change.after
    assert before is not None
    assert after is not None
    words = found.change.differences
    named = {
        "st_mode": "mode" in words or "type" in words,
        "st_nlink": "links" in words,
        "st_uid": "owner" in words and before.uid != after.uid,
        "st_gid": "owner" in words and before.gid != after.gid,
        "st_rdev": "device" in words,
        "st_atime_sec": form.atime and before.atime_ns != after.atime_ns,
        "st_mtime_sec": "times" in words and before.mtime_ns != after.mtime_ns,
        "xattrs": "xattrs" in words,
        "target": "target" in words,
    }
    return [name for name, differs in named.items() if differs]


def fact_lines(facts: Sequence[FactChange]) -> Iterator[str]:
    """The facts in sections: ``+`` came, ``-`` went, ``~`` changed."""
    for area, heading in _HEADINGS.items():
        chosen = [fact for fact in facts if fact.area == area]
        if chosen:
            yield f"\n{heading}"
            yield from (f"  {_fact(fact)}" for fact in chosen)


def _fact(fact: FactChange) -> str:
    name = safe_text(fact.name)
    if fact.before is None:
        return f"+ {name} {safe_text(fact.after or '')}".rstrip()
    if fact.after is None:
        return f"- {name} {safe_text(fact.before)}".rstrip()
    return f"~ {name} {safe_text(fact.before)} -> {safe_text(fact.after)}"
