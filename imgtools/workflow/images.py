"""Open image files for the verbs of ``imgtools image``: vetted, held, every layer named."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgtools.errors import UsageError
from imgtools.image.hold import holding
from imgtools.model.disks import Disk, DiskRequest
from imgtools.workflow.opening import files_of_layers, finish_interrupted, resolve_disks


@contextlib.contextmanager
def to_read(
    requests: Sequence[DiskRequest], *, untrusted: bool, unlock: bool = False
) -> Iterator[tuple[Disk, ...]]:
    """The disks with their chains, which nobody changes while the block lasts.

    An image whose commit was interrupted is read through its overlay, which is whole.  ``unlock``:
    the caller has the key of images that are encrypted.  Raises what
    `imgtools.image.chain.resolve_disk` raises, InUseError naming who writes to a layer, and for
    what is no file of this host what `imgtools.workflow.unfiled.open_unfiled` raises.
    """
    filed = [request for request in requests if not request.unfiled]
    disks = resolve_disks(filed, untrusted=untrusted, unlock=unlock)
    with contextlib.ExitStack() as stack:
        stack.enter_context(holding([(path, False) for disk in disks for path in files_of(disk)]))
        # What was vetted before the lock may have been another file.
        held = iter(resolve_disks(filed, untrusted=untrusted, unlock=unlock))
        yield tuple(
            _unfiled(request, stack, untrusted=untrusted) if request.unfiled else next(held)
            for request in requests
        )


def _unfiled(request: DiskRequest, stack: contextlib.ExitStack, *, untrusted: bool) -> Disk:
    from imgtools.workflow.unfiled import open_unfiled

    folder = stack.enter_context(private_folder())
    return open_unfiled(request, folder, untrusted=untrusted)


@contextlib.contextmanager
def to_change(request: DiskRequest, *, untrusted: bool) -> Iterator[Disk]:
    """One disk whose active layer is held for a change, and what is below held unchanged.

    An interrupted change is finished or discarded first.  The caller refuses what its change would
    break (`imgtools.image.children.overlays_of`, a running domain).  Raises as `to_read` does, and
    what `imgtools.transaction.recovery.recover` raises.
    """

    if request.path is not None:
        finish_interrupted(request.path, untrusted=untrusted)
    (disk,) = resolve_disks([request], untrusted=untrusted)
    top, *lower = files_of(disk)
    with holding([(top, True), *((path, False) for path in lower)]):
        # What was vetted before the lock may have been another file.
        yield resolve_disks([request], untrusted=untrusted)[0]


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for links and secrets, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="imgtools-") as folder:
        yield Path(folder)


def files_of(disk: Disk) -> list[Path]:
    """The local files that a disk rests on, the active layer's own first.

    Raises UsageError for a remote disk.
    """
    if not disk.layers:
        raise UsageError(
            f"{disk.name}: is not a file of this host", hint="copy it here first, or name a file"
        )
    return files_of_layers(disk.layers)
