"""Compare two images as their guests see them, and say where an image's data lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from imgtools.errors import UsageError
from imgtools.image.comparing import Difference, compare, map_extents
from imgtools.image.job import Report
from imgtools.image.readable import is_encrypted, opened_size, source_node
from imgtools.image.secret import SOURCE, secrets
from imgtools.model.disks import Disk, DiskRequest
from imgtools.model.notices import Notice
from imgtools.workflow.images import private_folder, to_read
from imgtools.workflow.opening import pending_notices

_IDS = ("first", "second")


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
    given: tuple[bytes | None, bytes | None] = (None, None),
) -> Compared:
    """Compare two images; ``make_report(bytes)`` gives a context whose value is told the part done.

    Without ``strict`` a longer image is the same when the rest of it is zeros, with a warning.
    ``given`` are the keys of encrypted images; the first one's serves both if it is the only one.
    Raises as `to_read` does, ImageError, UsageError for a key that opens nothing.
    """
    with (
        to_read([first, second], untrusted=untrusted, unlock=any(given)) as disks,
        private_folder() as folder,
        secrets(dict(zip(_IDS, given, strict=True))) as keys,
    ):
        ids = _keys_of(disks, given)
        one, two = (
            source_node(disk, folder, key=ids[index], index=index)
            for index, disk in enumerate(disks)
        )
        sizes = opened_size(disks[0], one, keys), opened_size(disks[1], two, keys)
        report: Report
        with make_report(max(sizes)) as report:
            difference = compare(one, two, strict=strict, report=report, keys=keys)
    notices = pending_notices(disks)
    if difference is None and sizes[0] != sizes[1]:
        message = (
            f"{first.name} has {sizes[0]} bytes, {second.name} {sizes[1]}: what only one of them "
            "has is zeros"
        )
        notices.append(Notice(code="compare.size", message=message))
    return Compared(difference=difference, sizes=sizes, notices=tuple(notices))


def _keys_of(
    disks: Sequence[Disk], given: tuple[bytes | None, bytes | None]
) -> tuple[str | None, str | None]:
    """The ids of the secrets that open each of the two.  Raises EncryptedError, UsageError."""
    first, second = (None if key is None else name for key, name in zip(given, _IDS, strict=True))
    if first is None or second is not None:
        return first, second
    locked = [is_encrypted(disk) for disk in disks]
    # A key that fits neither is refused with the first.
    return first if locked[0] or not locked[1] else None, first if locked[1] else None


@contextmanager
def mapped(
    request: DiskRequest,
    *,
    untrusted: bool,
    start: int = 0,
    length: int | None = None,
    key: bytes | None = None,
) -> Iterator[tuple[Disk, Iterator[dict[str, Any]]]]:
    """The disk and its extents, from ``start`` on, at most ``length`` bytes.

    ``key`` is that of an encrypted image.  Raises as `to_read` does, UsageError for a start beyond
    the end or a key that opens nothing, EncryptedError, and ToolError.
    """
    with (
        to_read([request], untrusted=untrusted, unlock=key is not None) as (disk,),
        private_folder() as folder,
        secrets({SOURCE: key}) as keys,
    ):
        node = source_node(disk, folder, key=None if key is None else SOURCE)
        size = opened_size(disk, node, keys)
        if start >= max(size, 1):
            raise UsageError(f"--start-offset {start}: {request.name} has {size} bytes")
        yield disk, map_extents(node, start=start, length=length, keys=keys)
