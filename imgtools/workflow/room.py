"""Whether a copy fits where it is to be: measured before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgtools.errors import SpaceError
from imgtools.image.measure import measure
from imgtools.image.newfile import behind_links
from imgtools.transaction.space import free

if TYPE_CHECKING:
    from imgtools.workflow.converting import Job

AMPLE = 256 << 20  # bytes
# qemu's parallels driver takes so much ahead, until it closes the file (prealloc-size).
PARALLELS_AHEAD = 128 << 20
# Bytes of the disk to a byte of its table, which is there from the beginning: an entry of four
# bytes for each MiB (block/vdi.c, block/parallels.c), or for two (block/vpc.c).
_COVERED = {"vdi": 1 << 18, "parallels": 1 << 18, "vpc": 1 << 19}


def check_space(job: Job) -> None:
    """Measure before anything is written.  Raises SpaceError.

    How far a compressed copy shrinks nobody knows, so that the disk is left to run full.
    """
    how, folder = job.how, behind_links(job.target).absolute().parent
    left = free(folder)
    # No format adds so much to the data that it need be measured then.
    ample = job.size + job.size // 16 + AMPLE
    if how.writing.compress or (left > ample and not how.writing.bitmaps):
        return
    needed = _needed(job)
    if left < needed:
        raise SpaceError(
            f"{job.target}: the copy takes {_mib(needed)}, {_mib(left)} are free in {folder}",
            hint="free some space there, or write to another disk",
        )


def _needed(job: Job) -> int:
    """Bytes that the copy takes; of formats that qemu-img does not measure, what the data take.

    Nor does it say what a sparse raw file takes: its answer is the whole size (raw_measure in
    block/raw-format.c).
    """
    how = job.how
    is_qcow2 = how.target_format == "qcow2"
    # With its encryption, qemu-img would time the key derivation for seconds.
    plain = {name: value for name, value in job.options.items() if not name.startswith("encrypt.")}
    found = measure(
        job.source.node,
        "qcow2",
        plain if is_qcow2 else {},
        name=job.disk.name,
        snapshot=job.source.snapshot,
        keys=job.keys,
    )
    if is_qcow2:
        needed = found.fully_allocated if how.writing.sparse == 0 else found.required
        return needed + ((found.bitmaps or 0) if how.writing.bitmaps else 0)
    if how.writing.sparse == 0 or job.options.get("preallocation") in ("full", "falloc"):
        return job.size
    # "Required" is fully allocated without the clusters that hold no data.
    data = max(0, job.size - (found.fully_allocated - found.required))
    tables = job.size // _COVERED[how.target_format] if how.target_format in _COVERED else 0
    return data + tables + (PARALLELS_AHEAD if how.target_format == "parallels" else 0)


def _mib(size: int) -> str:
    return f"{-(-size >> 20)} MiB" if size < 10 << 20 else f"{size >> 20} MiB"
