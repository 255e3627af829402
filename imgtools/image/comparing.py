"""``qemu-img compare`` and ``qemu-img map`` on vetted chains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from imgtools import nodes
from imgtools.errors import EncryptedError, ImageError, ToolError
from imgtools.image.failure import wrong_key
from imgtools.image.job import Report, run_job, silent
from imgtools.image.secret import Secrets
from imgtools.process import streaming

_OFFSET = re.compile(r"offset (\d+)", re.IGNORECASE)
# qemu-img.c, img_compare: 2 cannot open, 3 allocation unknown, 4 cannot read.
_FAILED = {2: "cannot be opened", 3: "says nothing of its allocation", 4: "cannot be read"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first difference of two images, at ``offset`` bytes (None for their sizes)."""

    kind: Literal["content", "allocation", "size"]
    offset: int | None = None


def compare(
    first: nodes.Node,
    second: nodes.Node,
    *,
    strict: bool,
    report: Report = silent,
    keys: Secrets = Secrets(),  # noqa: B008 (immutable)
) -> Difference | None:
    """The first difference of two images as guests see them, None if there is none.

    With ``strict`` their sizes and what is allocated count as well.  Raises ImageError when one
    cannot be read, EncryptedError when a key does not fit.
    """
    words = ["-s"] if strict else []
    argv = ["qemu-img", "compare", "-p", *keys.words, *words]
    argv += [nodes.spec(first), nodes.spec(second)]
    done = run_job(argv, report, good=(0, 1, *_FAILED), pass_fds=keys.fds)
    if done.status == 0:
        return None
    text = done.said[-1] if done.said else ""
    if done.status in _FAILED:
        why = text.removeprefix("qemu-img: ")
        if wrong_key(text):
            raise EncryptedError("a key does not open its image", hint="check the keys")
        shown = why if len(why) < 300 else f"... {why[-200:]}"
        raise ImageError(f"one of the images {_FAILED[done.status]}: {shown}")
    found = next((one for one in done.said if "mismatch" in one and "Warning" not in one), "")
    if "size mismatch" in found:
        return Difference(kind="size")
    offset = _OFFSET.search(found)
    if offset is None:
        raise ToolError(f"qemu-img compare: its answer is not the expected one: {text[:200]}")
    kind: Literal["content", "allocation"] = "content" if "ontent" in found else "allocation"
    return Difference(kind=kind, offset=int(offset[1]))


def map_extents(
    node: nodes.Node,
    *,
    start: int = 0,
    length: int | None = None,
    keys: Secrets = Secrets(),  # noqa: B008 (immutable)
) -> Iterator[dict[str, Any]]:
    """What ``qemu-img map --output=json`` says, one extent after the other.

    ``start``, ``length`` in bytes; keys are qemu's: start, length, depth (0: the active layer),
    present, zero, data, and offset where the bytes lie as they are.  Raises ToolError, and
    EncryptedError when a key does not fit.
    """
    words = [f"--start-offset={start}"] if start else []
    if length is not None:
        words.append(f"--max-length={length}")
    argv = ["qemu-img", "map", "--output=json", *keys.words, *words, nodes.spec(node)]
    try:
        with streaming(argv, pass_fds=keys.fds) as stream:
            yield from _extents(stream)
    except ToolError as error:
        if wrong_key(error.message):
            raise EncryptedError("the key does not open the image", hint="check the key") from error
        raise


def _extents(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.strip().strip(b"[],")
        if text:
            try:
                yield json.loads(text)
            except ValueError:
                raise ToolError("qemu-img map: its answer is not the expected JSON") from None
