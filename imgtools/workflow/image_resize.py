"""Give an image another virtual size: no partition is cut, a GPT fits the disk, all or nothing.

Everything goes through a transaction.  Its overlay has the new size and the moved GPT; the commit
gives the image its size and its GPT, and ``imgtools recover`` finishes one that was interrupted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from imgtools.errors import (
    ImageUnsupportedError,
    RefusedError,
    SpaceError,
    UsageError,
)
from imgtools.image.header import ImageHeader
from imgtools.image.vet import MAX_VIRTUAL_SIZE, vet
from imgtools.image.window import write_bytes
from imgtools.model.disks import Disk, DiskRequest
from imgtools.model.notices import Notice
from imgtools.transaction.space import free
from imgtools.transaction.transaction import Transaction
from imgtools.workflow.held import refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import finish_interrupted, resolve_disks
from imgtools.workflow.resize_limits import (
    refuse_to_grow,
    refuse_to_lose,
    require_room_for_gpt,
    warnings,
)

if TYPE_CHECKING:
    from imgtools.direct.layout import Layout

RESIZABLE = ("raw", "qcow2", "qed", "luks")  # a file that is a LUKS container is a raw disk

Sign = Literal["", "+", "-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """What is to be done: ``size`` in bytes is the new size, or a difference with a ``sign``."""

    request: DiskRequest
    sign: Sign
    size: int
    shrink: bool = False
    preallocation: str = "off"
    dry_run: bool = False
    untrusted: bool = False
    workdir: Path | None = None
    break_overlays: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """Sizes in bytes.  ``moved``: where the GPT's backup header was and is; None if it stayed.

    ``smallest`` is what the disk needs, None for one with nothing known on it; ``last_partition``
    is the number of the one that may grow into the new space.
    """

    image: str
    format: str
    old_size: int
    new_size: int
    committed: bool
    table: str
    smallest: int | None
    last_partition: int | None
    moved: tuple[int, int] | None
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    new_size: int
    layout: Layout
    writes: Sequence[tuple[int, bytes]]
    warnings: tuple[Notice, ...]


def resize(asked: Resizing) -> Resized:
    """Resize an image, or only say what would be done.

    Raises RefusedError and its kin for what would lose data or is in use, ImageError and its kin
    for a bad image or one of a format without resize, SpaceError, CommitError.
    """
    path = asked.request.path
    if path is None:
        raise UsageError(f"{asked.request.name}: is not a file of this host", hint="copy it here")
    refuse_running([path])
    finish_interrupted(path, untrusted=asked.untrusted)
    header = vet(path, asked.request.format)
    _require_format(header)
    if header.format == "qed" and asked.preallocation != "off":
        raise UsageError("--preallocation: a qed image has none", hint="leave it out")
    (disk,) = resolve_disks([asked.request], untrusted=asked.untrusted)
    disk = replace(disk, in_use=False)
    with Transaction(
        [disk],
        command="image resize",
        workdir=asked.workdir,
        break_overlays=asked.break_overlays,
    ) as transaction:
        # What was vetted before it was held may have been another file.
        header = vet(path, asked.request.format)
        old = disk.layers[0].virtual_size
        plan = _plan(asked, disk, header)
        changing = plan.new_size != old or bool(plan.writes)
        if changing and not asked.dry_run:
            _require_space(asked, disk, plan)
            _make_overlay(disk, transaction.overlays[0], plan)
            transaction.resize(plan.new_size, asked.preallocation)
            transaction.commit()
    gpt = plan.layout.gpt
    moved = (gpt.alternate * gpt.sector, plan.new_size - gpt.sector) if gpt else None
    return Resized(
        image=asked.request.name,
        format=header.format,
        old_size=old,
        new_size=plan.new_size,
        committed=changing and not asked.dry_run,
        table=plan.layout.kind,
        smallest=plan.layout.smallest,
        last_partition=plan.layout.last_number,
        moved=moved if plan.writes else None,
        warnings=plan.warnings,
    )


# --- what may be done ----------------------------------------------------------------------------


def _require_format(header: ImageHeader) -> None:
    if header.format not in RESIZABLE:
        raise ImageUnsupportedError(
            f"{header.path}: images of the format {header.format} cannot be resized",
            hint=f"convert it first: imgtools convert -O qcow2 {header.path} NEW",
        )
    if header.format not in ("qcow2", "qed") and header.path.is_block_device():
        raise RefusedError(
            f"{header.path}: a block device has the size that its own layer gives it",
            hint="lvextend or lvreduce, for a logical volume",
        )


def _plan(asked: Resizing, disk: Disk, header: ImageHeader) -> _Plan:
    from imgtools.direct.layout import gpt_writes, layout_of
    from imgtools.workflow.disk_stream import open_any

    old = disk.layers[0].virtual_size
    with contextlib.closing(open_any(disk)) as stream:
        layout = layout_of(stream, asked.request.block_size, disk.name)
        new = _new_size(asked, old, layout.sector)
        if new < old:
            refuse_to_lose(disk, header, layout, new, stream, allowed=asked.shrink)
        elif new > old:
            refuse_to_grow(disk, header, layout)
        require_room_for_gpt(disk, layout, new)
        writes = gpt_writes(stream, layout, new)
    return _Plan(
        new_size=new, layout=layout, writes=writes, warnings=warnings(disk, layout, old, new)
    )


def _new_size(asked: Resizing, old: int, sector: int) -> int:
    exact = {"": asked.size, "+": old + asked.size, "-": old - asked.size}[asked.sign]
    if exact <= 0:
        raise UsageError(f"{asked.request.name}: has {old} bytes, nothing would be left")
    if exact > MAX_VIRTUAL_SIZE:
        raise UsageError(f"{exact}: a disk of that size cannot be addressed")
    return -(-exact // sector) * sector


# --- doing it ------------------------------------------------------------------------------------


def _require_space(asked: Resizing, disk: Disk, plan: _Plan) -> None:
    if asked.preallocation in ("off", "metadata"):
        return
    layer = disk.layers[0]
    folder = Path(os.path.realpath(layer.extents[0] if layer.extents else layer.path)).parent
    needed, left = plan.new_size - layer.virtual_size, free(folder)
    if needed > left:
        raise SpaceError(
            f"{disk.name}: the new space takes {needed} bytes in {folder}, where {left} are free",
            hint="free some space, grow it by less, or leave --preallocation out",
        )


def _make_overlay(disk: Disk, overlay: Path, plan: _Plan) -> None:
    """The overlay of the new size, with the sectors that are moved."""
    from imgtools.appliance.overlay import chain_node, make_overlay, overlay_node

    with private_folder() as folder:
        make_overlay(disk, 0, folder, overlay, size=plan.new_size)
        node = {**overlay_node(overlay, folder), "backing": chain_node(disk, folder)}
        for offset, data in plan.writes:
            write_bytes(node, offset, data)
