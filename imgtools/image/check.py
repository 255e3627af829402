"""``qemu-img check``: what it finds in an image's own tables, and the repair of it.

Exit statuses (qemu-img.c: img_check): 0 all is well, 1 not completed, 2 corruptions, 3 leaks only,
63 the format knows no check (or no repair).  After a repair it is the state after it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from imgtools import nodes
from imgtools.errors import ImageError, ImageUnsupportedError, ToolError
from imgtools.image.header import ImageHeader
from imgtools.process import running

Repair = Literal["leaks", "all"]
MAX_MESSAGES = 100
MARKS = "ERROR OFLAG_COPIED"
"""How qemu says that a mark "used once" does not fit the count of the cluster."""
_MAX_LINE = 1 << 16
_MAX_TABLE = 8 << 30  # bytes of counters that qemu-img may need

_STATES: dict[int, Literal["ok", "corrupt", "leaks"]] = {0: "ok", 2: "corrupt", 3: "leaks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check found; after a repair what is left, and how much was mended (``…_fixed``).

    ``end`` is where the last cluster in use ends, in bytes; the numbers of clusters are None where
    the format does not count them.  ``messages`` are qemu's first ones, of ``said`` in all.
    ``counts_only``: nothing is wrong but counts that are too high and marks that follow from them,
    as a killed qemu leaves them.
    """

    state: Literal["ok", "corrupt", "leaks"]
    corruptions: int = 0
    leaks: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    end: int | None = None
    total_clusters: int | None = None
    allocated_clusters: int | None = None
    fragmented_clusters: int | None = None
    compressed_clusters: int | None = None
    messages: tuple[str, ...] = ()
    said: int = 0
    counts_only: bool = False


def run_check(path: Path, node: nodes.Node, repair: Repair | None = None) -> Check:
    """Check the image behind ``node``, or repair it; ``path`` is for messages.

    Raises ImageUnsupportedError when the format knows no check (no repair), ImageError when the
    check was not completed.
    """
    fix = [] if repair is None else ["-r", repair]
    argv = ["qemu-img", "check", "--output=json", *fix, nodes.spec(node)]
    with running(argv) as child:
        assert child.stdout is not None
        heard = _listen(child.stdout)
        status = child.wait()
    if status == 63:
        what = "check" if repair is None else f"repair (-r {repair})"
        raise ImageUnsupportedError(
            f"{path}: qemu-img knows no {what} of the format {node['driver']}",
            hint="compare it with a backup: imgtools image compare",
        )
    facts = heard.facts
    if status not in _STATES or facts is None:
        last = heard.messages[-1] if heard.messages else f"exit status {status}"
        raise _not_completed(path, last.removeprefix("qemu-img: "), status)
    return Check(
        state=_STATES[status],
        corruptions=_number(facts, "corruptions") or 0,
        leaks=_number(facts, "leaks") or 0,
        corruptions_fixed=_number(facts, "corruptions-fixed") or 0,
        leaks_fixed=_number(facts, "leaks-fixed") or 0,
        end=_number(facts, "image-end-offset"),
        total_clusters=_number(facts, "total-clusters"),
        allocated_clusters=_number(facts, "allocated-clusters"),
        fragmented_clusters=_number(facts, "fragmented-clusters"),
        compressed_clusters=_number(facts, "compressed-clusters"),
        messages=heard.messages,
        said=heard.said,
        counts_only=status == 3 or (status == 2 and heard.marks and not heard.damage),
    )


def refuse_endless(header: ImageHeader) -> None:
    """Raise ImageUnsupportedError for a file whose check would take all of this host's memory.

    qemu keeps up to 8 bytes for every cluster that the file could have.
    """
    if header.cluster_size and header.file_size // header.cluster_size * 8 > _MAX_TABLE:
        raise ImageUnsupportedError(
            f"{header.path}: {header.file_size} bytes in clusters of {header.cluster_size} are too "
            "many to be counted",
            hint="copy it with larger clusters: imgtools image convert",
        )


def _not_completed(path: Path, why: str, status: int) -> ImageError | ToolError:
    # The name of a node is a page of JSON.
    shown = why if len(why) < 300 else f"{why[:60]} ... {why[-120:]}"
    if status < 0:
        return ToolError(f"{path}: qemu-img check was ended by signal {-status}")
    return ImageError(
        f"{path}: the check was not completed: {shown}", hint="restore the image from a backup"
    )


class _Heard(NamedTuple):
    facts: Mapping[str, Any] | None
    messages: tuple[str, ...]
    said: int
    marks: bool
    damage: bool


def _listen(stream: IO[bytes]) -> _Heard:
    """Read messages (bounded) and the JSON object that ends them."""
    messages: list[str] = []
    said, answer, marks, damage = 0, b"", False, False
    while line := stream.readline(_MAX_LINE):
        if line == b"{\n" or answer:
            answer = answer + line if len(answer) < _MAX_LINE * 4 else answer
            continue
        text = line.decode(errors="replace").strip()
        if not text:
            continue
        marks |= text.startswith(MARKS)
        damage |= text.startswith("ERROR") and not text.startswith(MARKS)
        said += 1
        if len(messages) == MAX_MESSAGES:
            messages.pop()  # the last one says why it ended
        messages.append(text)
    try:
        facts = json.loads(answer) if answer else None
    except (ValueError, RecursionError):
        facts = None
    return _Heard(facts if isinstance(facts, dict) else None, tuple(messages), said, marks, damage)


def _number(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    return value if isinstance(value, int) else None
