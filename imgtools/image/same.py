"""Compare two disks by ``qemu-img compare``, and look for data by ``qemu-img map``."""

from __future__ import annotations

import json

from imgtools.errors import ImageError
from imgtools.image.job import Report, run_job
from imgtools.image.secret import Secrets
from imgtools.nodes import Node, spec
from imgtools.process import run

MAP_TIMEOUT = 3600.0
_SAME, _DIFFER = 0, 1  # exit statuses of qemu-img compare


def refuse_difference(
    source: Node, target: Node, name: str, report: Report, *, keys: Secrets
) -> None:
    """Raise ImageError if the two disks do not read alike; ``name`` is the target's.

    Raises ToolError when one cannot be read.
    """
    argv = ["qemu-img", "compare", "-p", *keys.words, spec(source), spec(target)]
    status, said = run_job(argv, report, good=(_SAME, _DIFFER), pass_fds=keys.fds)
    if status == _DIFFER:
        raise ImageError(
            f"{name}: the copy differs from its source ({said[-1] if said else 'no details'})",
            hint="the storage or the memory may be failing; see dmesg",
        )


def reads_as_zeros(target: str, *, keys: Secrets) -> bool:
    """Whether every byte of ``target`` (``--image-opts``) is known to read as zero."""
    argv = ["qemu-img", "map", "--output=json", *keys.words, "--image-opts", target]
    done = run(argv, timeout=MAP_TIMEOUT, pass_fds=keys.fds)
    try:
        pieces = json.loads(done.stdout)
    except ValueError:
        return False  # more pieces than we keep of its output: there are data
    return all(piece.get("zero") is True for piece in pieces)
