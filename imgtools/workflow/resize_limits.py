"""What stands against another size of a disk: nothing that is on it may be cut or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgtools.errors import ImageUnsupportedError, RefusedError
from imgtools.image.header import ImageHeader
from imgtools.image.window import data_from
from imgtools.model.disks import Disk
from imgtools.model.notices import Notice
from imgtools.workflow.images import private_folder

if TYPE_CHECKING:
    from imgtools.direct.layout import Layout
    from imgtools.direct.streams import BlockStream

MBR_LIMIT = 1 << 41  # 2^32 sectors of 512 bytes
_PIECE = 1 << 20


def refuse_to_lose(
    disk: Disk,
    header: ImageHeader,
    layout: Layout,
    new: int,
    stream: BlockStream,
    *,
    allowed: bool,
) -> None:
    """Raise RefusedError unless the disk may be cut to ``new`` bytes, which is ``allowed``."""
    if header.format == "qed":
        raise ImageUnsupportedError(
            f"{disk.name}: qemu only makes qed images larger, never smaller",
            hint=f"convert it first: imgtools convert -O qcow2 {header.path} NEW",
        )
    if not allowed:
        raise RefusedError(
            f"{disk.name}: would become smaller, {new} instead of {stream.size} bytes",
            hint="say --shrink if that is meant",
        )
    _refuse_what_hinders(disk, header)
    smallest, last = layout.smallest, layout.last
    if layout.kind == "unknown":
        raise RefusedError(
            f"{disk.name}: what is on it cannot be told for certain ({last}), so nothing is cut",
            hint="mend the partition table first, or copy what is needed to a new image",
        )
    if smallest is None:
        smallest, last = _data_end(disk, stream, new), "data of an unknown kind"
    if new < smallest:
        raise RefusedError(
            f"{disk.name}: {last} would be cut; the smallest safe size is {smallest} bytes",
            hint="make smaller what is on it first, from within the guest",
        )


def _refuse_what_hinders(disk: Disk, header: ImageHeader) -> None:
    if header.snapshots:
        raise RefusedError(
            f"{disk.name}: has internal snapshots, which would be cut as well",
            hint="delete them first: imgtools snapshot delete",
        )
    if any("in-use" in bitmap.flags for bitmap in header.bitmaps):
        raise RefusedError(
            f"{disk.name}: has a dirty bitmap that was left in use, which hinders shrinking",
            hint="remove it first: imgtools image bitmap remove",
        )


def _data_end(disk: Disk, stream: BlockStream, start: int) -> int:
    """Where the last byte behind ``start`` that is not zero ends, in whole sectors."""
    from imgtools.appliance.overlay import chain_node

    with private_folder() as folder:
        ranges = list(data_from(chain_node(disk, folder), start))
    for one in reversed(ranges):
        end = min(one.start + one.length, stream.size)
        while end > max(one.start, start):
            begin = max(one.start, start, end - _PIECE)
            kept = stream.read_at(begin, end - begin).rstrip(b"\0")
            if kept:
                return -(-(begin + len(kept)) // 512) * 512
            end = begin
    return start


def refuse_to_grow(disk: Disk, header: ImageHeader, layout: Layout) -> None:
    """Raise RefusedError for what would not be found any more on a larger disk."""
    if layout.end_bound:
        raise RefusedError(
            f"{disk.name}: {layout.last}, which would not be found any more behind new space",
            hint="take the disk out of the array first, in the guest",
        )
    if header.snapshots and header.version == 2:
        raise RefusedError(
            f"{header.path}: a qcow2 of version 2 with internal snapshots cannot be resized",
            hint=f"qemu-img amend -f qcow2 -o compat=1.1 {header.path}",
        )


def require_room_for_gpt(disk: Disk, layout: Layout, new: int) -> None:
    """Raise RefusedError if the entries of a GPT would reach beyond ``new`` bytes."""
    if layout.gpt is not None and layout.smallest is not None and new < layout.smallest:
        raise RefusedError(
            f"{disk.name}: {layout.last} reach beyond the new end",
            hint=f"take {layout.smallest} bytes or more",
        )


def warnings(disk: Disk, layout: Layout, old: int, new: int) -> tuple[Notice, ...]:
    """What the user is to do, or to know, after a resize from ``old`` to ``new`` bytes."""
    notices = []
    if layout.kind == "unknown":
        text = f"{disk.name}: {layout.last}; the partition table stays as it is"
        notices.append(Notice(code="image.table-unknown", message=text))
    if layout.kind == "msdos" and new > MBR_LIMIT:
        text = f"{disk.name}: an MBR cannot have partitions beyond 2 TiB"
        notices.append(Notice(code="image.mbr-limit", message=text))
    if new > old and layout.last_number:
        number = layout.last_number
        text = (
            f"the space is behind partition {number}: in the guest, growpart DISK {number}, then "
            "grow what is on it (pvresize, resize2fs, xfs_growfs, btrfs filesystem resize)"
        )
        notices.append(Notice(code="advice.grow", message=text))
    elif new > old and layout.kind == "none" and layout.last:
        text = f"{layout.last}: in the guest, grow it (pvresize, resize2fs, xfs_growfs ...)"
        notices.append(Notice(code="advice.grow", message=text))
    return tuple(notices)
