"""Persistent dirty bitmaps of qcow2, changed by ``qemu-img bitmap``."""

from __future__ import annotations

from collections.abc import Sequence

from imgtools.errors import ToolError
from imgtools.nodes import Node, spec
from imgtools.process import run

_TIMEOUT = 3600.0


def change(node: Node, name: str, options: Sequence[str], source: Node | None = None) -> None:
    """Run ``qemu-img bitmap`` with ``options``; ``source`` is the image that --merge takes from.

    Raises ToolError.
    """
    other = () if source is None else ("-b", _alone(source))
    argv = ["qemu-img", "bitmap", *options, *other, "--", _alone(node), name]
    done = run(argv, timeout=_TIMEOUT)
    if done.stderr.strip():
        # Bitmaps are stored when the image is closed, and then qemu only complains of a failure.
        raise ToolError(f"qemu-img: {done.last_error_line()}")


def _alone(node: Node) -> str:
    # qemu-img bitmap opens no backing file, and then knows no options of one.
    return spec({**node, "backing": None})
