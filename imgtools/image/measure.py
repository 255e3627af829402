"""Ask ``qemu-img measure`` how much space a new image will take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from imgtools.errors import ToolError
from imgtools.image.failure import failure
from imgtools.image.header import Snapshot
from imgtools.image.readable import snapshot_words
from imgtools.image.secret import TARGET, Secrets, run_with, secrets
from imgtools.image.target import MEASURABLE, joined
from imgtools.nodes import Node, spec

TIMEOUT = 3600.0  # it asks where the data of the whole source are


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes that the image file takes: for the data now, and when every cluster is in use.

    ``bitmaps`` is what copies of the source's bitmaps take in addition, None where there are none.
    """

    required: int
    fully_allocated: int
    bitmaps: int | None = None


def can_measure(target_format: str) -> bool:
    """Whether qemu-img knows the sizes of this format."""
    return target_format in MEASURABLE


def measure(
    source: Node | int,
    target_format: str,
    options: Mapping[str, str],
    *,
    name: str,
    snapshot: Snapshot | None = None,
    keys: Secrets | None = None,
) -> Measured:
    """Measure a copy of ``source``, a node or an empty disk of so many bytes.

    ``options`` as for the copy; ``name`` is what errors are about.  Raises UsageError for options
    that do not fit, and ToolError.
    """
    what = ["--size", str(source)] if isinstance(source, int) else [spec(source)]
    with secrets({TARGET: None if keys else any_key(options)}) as stand_in:
        found = keys or stand_in
        argv = ["qemu-img", "measure", "--output=json", *found.words, "-O", target_format]
        argv += [*joined(options), *snapshot_words(snapshot), *what]
        try:
            said = run_with(found, argv, timeout=TIMEOUT)
        except ToolError as error:
            raise failure(error, name, {what[-1]: name}) from error
    facts = json.loads(said)
    return Measured(
        required=int(facts["required"]),
        fully_allocated=int(facts["fully-allocated"]),
        bitmaps=facts.get("bitmaps"),
    )


def any_key(options: Mapping[str, str]) -> bytes | None:
    """A key for ``options`` that want one: no size depends on what it is."""
    return b"any" if any("key-secret" in name for name in options) else None
