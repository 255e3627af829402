"""Change what an overlay rests on: copy what differs, then write the new name into its header.

``qemu-img rebase`` does both, but writes the header while tables that refer to the copied clusters
are still in its memory: killed there, it loses data (seen with qemu 7.2).  It also stores the very
name by which it opens the new parent, and a node with everything pinned has none for a header.  So
it is run twice.  The first run gets the new parent as a node and no format for it: it copies every
cluster that differs into the overlay and then, as its last step, refuses to store a name without a
format (bdrv_change_backing_file in block.c, since qemu 6.1).  The second, when all that is on the
storage, writes name and format in one write.  Before it the overlay shows its content with the old
parent, after it with the new one.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from imgtools.errors import ImageError, ToolError
from imgtools.image.job import Report, run_job, silent
from imgtools.nodes import Node, spec
from imgtools.process import run

FORMATS = ("qcow2", "qed")
"""Those in whose header qemu-img can change the backing file."""
LONGEST_NAME = 1023
"""Bytes of a backing file's name (qcow2_update_header in block/qcow2.c)."""
_REFUSAL = "backing format must be specified"
_MISMATCH = re.compile(r"Content mismatch at offset ([0-9]+)!")
_MEASURE_TIMEOUT = 3600.0


def copy_differing(overlay: Node, parent: Node | None, report: Report = silent) -> None:
    """Copy into ``overlay`` what it takes from its backing node and would not find in ``parent``.

    Without a parent that is all but zeros.  Its header stays as it is; done again it finds nothing
    to copy.  Raises ToolError.
    """
    parent = parent or {"driver": "null-co", "size": 512, "read-zeroes": True}
    done = run_job(
        ["qemu-img", "rebase", "-p", "-b", spec(parent), spec(overlay)], report, good=(0, 1)
    )
    last = done.said[-1] if done.said else ""
    if done.status == 1 and not last.endswith(_REFUSAL):
        raise ToolError(last)


def store_parent(overlay: Node, name: bytes, image_format: str | None) -> None:
    """Write ``name`` and format into the header of ``overlay``, a node of that layer alone.

    An empty name takes them out.  Raises ToolError.
    """
    argv = ["qemu-img", "rebase", "-q", "-u", "-b", os.fsdecode(name)]
    stated = ["-F", image_format] if image_format else []
    run([*argv, *stated, spec(overlay)])


def first_difference(one: Node, other: Node, report: Report = silent) -> int | None:
    """The offset of the first byte (in steps of qemu-img's) that differs; None if none does.

    A longer one differs where it has more than zeros.  Raises ToolError.
    """
    done = run_job(["qemu-img", "compare", "-p", spec(one), spec(other)], report, good=(0, 1))
    if done.status == 0:
        return None
    for line in done.said:
        if found := _MISMATCH.search(line):
            return int(found[1])
    raise ToolError("qemu-img compare: " + " ".join(done.said))


def whole_size(node: Node) -> int:
    """Bytes of a qcow2 file that holds all that ``node`` shows.  Raises ToolError, ImageError."""
    argv = ["qemu-img", "measure", "--output=json", "-O", "qcow2", spec(node)]
    try:
        return int(json.loads(run(argv, timeout=_MEASURE_TIMEOUT).stdout)["required"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError("qemu-img measure gave no size") from error


def allocated(path: Path) -> int:
    """Bytes that a file takes on its storage."""
    return path.stat().st_blocks * 512
