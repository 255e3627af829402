"""The forest of backing chains as a tree for people, and as a graph for Graphviz."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imgtools.cli.human import human_size
from imgtools.cli.render import safe_text

if TYPE_CHECKING:
    from imgtools.image.member import Identity
    from imgtools.workflow.chains import Checkup, Examined

MAX_INDENT = 24
"""Levels that are drawn; the lines of deeper ones say their depth."""


def print_forest(found: Checkup) -> None:
    """Print every tree, a root after the other."""
    print(safe_text(str(found.folder)))
    marks = _marks(found)
    forest = found.forest
    roots = [one for one in forest.roots() if one in found.shown]
    # (image, what its line begins with, what those below it begin with)
    waiting = [(root, "", "", 0) for root in reversed(roots)]
    while waiting:
        one, lead, below, depth = waiting.pop()
        missing = forest.links.get(one)
        if missing is not None and missing.parent is None:
            name = missing.target if missing.target is not None else "a parent that is not followed"
            print(f"{_name(found, name)}  (not there)")
            lead, below = "└── ", "    "
        print(lead + _line(found, one, marks))
        children = forest.below(one)
        for number, child in reversed(list(enumerate(children))):
            last = number == len(children) - 1
            step = ("└── ", "    ") if last else ("├── ", "│   ")
            if depth + 1 > MAX_INDENT:
                waiting.append((child, f"{below}[{depth + 1}] ", below, depth + 1))
            else:
                waiting.append((child, below + step[0], below + step[1], depth + 1))
    if not roots:
        print("no images")


def _marks(found: Checkup) -> dict[Path, str]:
    """The numbers of the findings of each image."""
    marks: dict[Path, str] = {}
    for number, one in enumerate(found.findings, start=1):
        path = one.finding.image
        marks[path] = f"{marks[path]},{number}" if path in marks else str(number)
    return marks


def _name(found: Checkup, path: Path | str) -> str:
    """A path as it is seen from the folder."""
    text = os.fspath(path)
    prefix = os.fspath(found.folder).rstrip("/") + "/"
    return safe_text(text.removeprefix(prefix))


def _line(found: Checkup, identity: Identity, marks: dict[Path, str]) -> str:
    member = found.forest.members[identity]
    size = "?" if member.virtual_size is None else human_size(member.virtual_size)
    owner = found.forest.parts.get(identity)
    part = [] if owner is None else [f"data of {_name(found, found.forest.path(owner))}"]
    facts = [*part, member.format, size, f"{human_size(member.actual_size)} taken"]
    if member.snapshots:
        facts.append(f"{member.snapshots} snapshot{'s' * (member.snapshots != 1)}")
    if member.locks.held:
        facts.append("in use for writing" if member.locks.writer else "in use for reading")
    facts += _uses(found, identity)
    text = f"{_name(found, member.path)}  {', '.join(facts)}"
    mark = marks.get(member.path)
    return f"{text}  <- {mark}" if mark else text


def _uses(found: Checkup, identity: Identity) -> Iterator[str]:
    for use in found.uses.get(identity, ()):
        state = " (running)" if use.active else ""
        what = f" snapshot {use.snapshot}" if use.snapshot is not None else state
        yield safe_text(f"domain {use.domain}{what}")


def print_findings(found: Checkup) -> None:
    """Print the findings with what mends them, numbered as in the tree."""
    if not found.findings:
        return
    print()
    for number, one in enumerate(found.findings, start=1):
        print("\n".join(_finding(found, number, one)))


def _finding(found: Checkup, number: int, one: Examined) -> Iterator[str]:
    finding = one.finding
    state = "mended: " if one.mended else ""
    yield f"{number}. {state}{_name(found, finding.image)}: {safe_text(finding.message)}"
    if one.mended:
        return
    if finding.hint:
        yield f"   {safe_text(finding.hint)}"
    if finding.command:
        yield f"   {finding.command}"


# --- Graphviz -------------------------------------------------------------------------------------


def print_dot(found: Checkup) -> None:
    """Print a digraph: an arrow goes from an image to its parent; red is what has findings."""
    forest, marks = found.forest, _marks(found)
    numbers = {one: f"n{number}" for number, one in enumerate(sorted(found.shown, key=forest.path))}
    print("digraph chains {\n  rankdir=BT;\n  node [shape=box, fontname=monospace];")
    for one, name in numbers.items():
        member = forest.members[one]
        lines = [_name(found, member.path), *_dot_facts(found, one)]
        colour = ", color=red" if member.path in marks else ""
        print(f"  {name} [label={_dot_text(lines)}{colour}];")
    for part, owner in forest.parts.items():
        if part in numbers:
            print(f"  {numbers[part]} -> {numbers[owner]} [style=dotted];")
    for one, name in numbers.items():
        link = forest.links.get(one)
        if link is None:
            continue
        if link.parent is not None:
            print(f"  {name} -> {numbers.get(link.parent, name)};")
            continue
        label = _name(found, link.target) if link.target is not None else "not followed"
        print(f"  {name}p [label={_dot_text([label])}, style=dashed, color=red];")
        print(f"  {name} -> {name}p;")
    print("}")


def _dot_facts(found: Checkup, identity: Identity) -> list[str]:
    member = found.forest.members[identity]
    size = "?" if member.virtual_size is None else human_size(member.virtual_size)
    return [f"{member.format}, {size}", *_uses(found, identity)]


def _dot_text(lines: list[str]) -> str:
    quoted = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(quoted) + '"'
