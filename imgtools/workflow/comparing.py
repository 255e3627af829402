"""Compare two images as their guests see them, and say where an image's data lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from imgtools.errors import UsageError
from imgtools.image.comparing import Difference, compare, map_extents
from imgtools.image.job import Report
from imgtools.model import Disk, DiskRequest, Notice
from imgtools.nodes import chain_node
from imgtools.workflow.images import private_folder, to_read


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The first difference (None: the same), the virtual sizes in bytes, and warnings."""

    difference: Difference | None
    sizes: tuple[int, int]
    notices: tuple[Notice, ...] = ()


def compare_images(
    first: DiskRequest,
    second: DiskRequest,
    *,
    strict: bool,
    untrusted: bool,
    make_report: Callable[[int], Any],
) -> Compared:
    """Compare two images; ``make_report(bytes)`` gives a context whose value is told the part done.

    Without ``strict`` a longer image is the same when the rest of it is zeros, with a warning.
    Raises as `to_read` does, and ImageError.
    """
    with to_read([first, second], untrusted=untrusted) as disks, private_folder() as folder:
        one, two = (chain_node(disk.layers, folder, index) for index, disk in enumerate(disks))
        sizes = (disks[0].layers[0].virtual_size, disks[1].layers[0].virtual_size)
        report: Report
        with make_report(max(sizes)) as report:
            difference = compare(one, two, strict=strict, report=report)
    notices = []
    if difference is None and sizes[0] != sizes[1]:
        message = (
            f"{first.name} has {sizes[0]} bytes, {second.name} {sizes[1]}: what only one of them "
            "has is zeros"
        )
        notices.append(Notice(code="compare.size", message=message))
    return Compared(difference=difference, sizes=sizes, notices=tuple(notices))


@contextmanager
def mapped(
    request: DiskRequest, *, untrusted: bool, start: int = 0, length: int | None = None
) -> Iterator[tuple[Disk, Iterator[dict[str, Any]]]]:
    """The disk and its extents, from ``start`` on, at most ``length`` bytes.

    Raises as `to_read` does, UsageError for a start beyond the end, and ToolError.
    """
    with to_read([request], untrusted=untrusted) as (disk,), private_folder() as folder:
        size = disk.layers[0].virtual_size
        if start >= max(size, 1):
            raise UsageError(f"--start-offset {start}: {request.name} has {size} bytes")
        node = chain_node(disk.layers, folder)
        yield disk, map_extents(node, start=start, length=length)
