"""Convert onto a file or block device that exists: in place, so a crash leaves half a copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imgtools.errors import ImageNotFoundError, RefusedError, UsageError
from imgtools.image.chain import refuse_fatal
from imgtools.image.convert import convert_onto, onto_options
from imgtools.image.header import ImageHeader
from imgtools.image.newfile import refuse_existing
from imgtools.image.plausible import host_uses_device
from imgtools.image.same import reads_as_zeros
from imgtools.image.source import open_source
from imgtools.image.vet import vet_source
from imgtools.model.notices import Notice
from imgtools.workflow.converting import Job, compare
from imgtools.workflow.images import files_of
from imgtools.workflow.replacing import replacing


def overwrite(job: Job, folder: Path) -> tuple[Notice, ...]:
    """Write the copy onto ``job.target``, held, and bring it to its storage.

    Raises RefusedError without --force, for a target that is too small, in use, relied on, or of
    several files; UsageError for a target that is not as it was said to be.
    """
    target, how = job.target, job.how
    if not target.exists():
        raise ImageNotFoundError(f"{target}: no such file", hint="leave -n out to make it")
    sources = files_of(job.disk)
    refuse_existing(target, force=how.force, sources=sources)
    if target.is_block_device():
        _refuse_same_device(target, sources)
    with replacing(target) as hold:
        assert hold is not None
        hold.take_exclusive()
        header = _vetted(job)
        options = onto_options(target, how.target_format, key=how.target_key is not None)
        if how.target_is_zero and not reads_as_zeros(options, keys=job.keys):
            raise RefusedError(
                f"{target}: is not all zeros; what is there would shine through",
                hint="leave --target-is-zero out",
            )
        with job.show(target.name, job.size) as report:
            convert_onto(
                job.source, target, options, how.writing, report, is_zero=how.target_is_zero
            )
        hold.sync()
        if how.verify:
            compare(job, target, folder)
    return _longer(job, header)


def _refuse_same_device(target: Path, sources: Sequence[Path]) -> None:
    """Two names of one device are no two devices."""
    number = target.stat().st_rdev
    for source in sources:
        if source.is_block_device() and source.stat().st_rdev == number:
            raise RefusedError(f"{target}: is the source", hint="write to another device")


def _vetted(job: Job) -> ImageHeader:
    """The header of the target, which can take the copy."""
    target, how = job.target, job.how
    if target.is_block_device() and how.target_format != "raw" and not how.no_create:
        raise UsageError(
            f"{target}: a block device is written with -O raw",
            hint="or make the image on it first, then use -n",
        )
    with open_source(target) as source:
        if host_uses_device(source):
            raise RefusedError(
                f"{target}: this host itself uses the device", hint="unmount it first"
            )
        header = vet_source(source, how.target_format)
    refuse_fatal(header, unlock=how.target_key is not None)
    if header.backing_file is not None or header.extents or header.data_file is not None:
        raise RefusedError(
            f"{target}: is not one file by itself", hint="convert to a new file instead"
        )
    # The header of a LUKS target does not say its size: qemu-img does when it comes to writing.
    if how.target_format != "luks" and header.virtual_size < job.size:
        raise RefusedError(
            f"{target}: holds {header.virtual_size} bytes, the source {job.size}",
            hint="choose or make a larger target",
        )
    return header


def _longer(job: Job, header: ImageHeader) -> tuple[Notice, ...]:
    if job.how.target_format == "luks" or header.virtual_size <= job.size:
        return ()
    more = header.virtual_size - job.size
    return (
        Notice(
            code="image.target-longer",
            message=f"{job.target}: {more} bytes behind the copy are as they were",
        ),
    )
