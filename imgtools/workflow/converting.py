"""Convert disks: each vetted and held, copied by qemu-img, and there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import RefusedError, UsageError
from imgtools.image.convert import Source, Writing, check_size, convert, cut_to
from imgtools.image.header import ImageHeader, Snapshot
from imgtools.image.job import Report
from imgtools.image.newfile import new_file
from imgtools.image.readable import find_snapshot, header_of, opened_size, source_node
from imgtools.image.same import refuse_difference
from imgtools.image.secret import SOURCE, TARGET, Secrets, secrets
from imgtools.image.target import complete_options
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from imgtools.model.notices import Notice
from imgtools.nodes import Node, chain_node
from imgtools.workflow.images import files_of, private_folder, to_read
from imgtools.workflow.opening import pending_notices, refuse_pending
from imgtools.workflow.replacing import replacing
from imgtools.workflow.room import check_space

MAX_SPARSE = 16 << 20  # bytes; MAX_BUF_SECTORS of qemu-img.c
Show = Callable[[str, int], AbstractContextManager[Report]]
"""Shows the progress of a job, given its name and its size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What to make and how.

    ``snapshot`` is what ``-l`` says; ``no_create`` writes onto a target that exists, which
    ``target_is_zero`` says to read as zeros; the keys are those of encrypted images.
    """

    target_format: str
    options: Mapping[str, str] = field(default_factory=dict)
    writing: Writing = field(default_factory=Writing)
    snapshot: str | None = None
    no_create: bool = False
    target_is_zero: bool = False
    verify: bool = False
    force: bool = False
    untrusted: bool = False
    source_key: bytes | None = field(default=None, repr=False)
    target_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A copy that was made; sizes in bytes, ``actual_size`` as the host stores it.

    ``source`` is a path, or the URI without its password.
    """

    source: Path | str
    source_format: str
    target: Path
    target_format: str
    virtual_size: int
    actual_size: int
    verified: bool
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One copy, its source open: ``size`` in bytes is what the copy will have."""

    disk: Disk
    source: Source
    target: Path
    size: int
    options: Mapping[str, str]
    how: How
    show: Show

    @property
    def keys(self) -> Secrets:
        """The keys of both sides."""
        return self.source.keys


def check(how: How) -> None:
    """Raise UsageError for what can be told before any image is opened."""
    complete_options(
        how.target_format,
        how.options,
        compress=how.writing.compress,
        key=how.target_key is not None,
    )
    if how.target_is_zero and not how.no_create:
        raise UsageError("--target-is-zero: only with -n", hint="a new image is all zeros anyway")
    if how.no_create and how.options:
        raise UsageError("-o: not with -n", hint="the image that exists has its options already")
    sparse = how.writing.sparse or 0
    if sparse % 512 or sparse > MAX_SPARSE:
        raise UsageError(f"-S {sparse}: not a multiple of 512 up to {MAX_SPARSE}", hint="-S 64K")
    if how.writing.bitmaps and how.target_format != "qcow2":
        raise UsageError(f"--bitmaps: {how.target_format} holds no bitmaps", hint="use -O qcow2")
    if how.writing.skip_broken_bitmaps and not how.writing.bitmaps:
        raise UsageError("--skip-broken-bitmaps: only with --bitmaps")
    if how.verify and how.snapshot is not None:
        raise UsageError("--verify: not with -l", hint="qemu-img compares no internal snapshot")
    if how.verify and how.writing.salvage:
        raise UsageError("--verify: not with --salvage", hint="what cannot be read is not compared")


def convert_image(request: DiskRequest, target: Path, how: How, show: Show) -> Converted:
    """Copy one disk to ``target``; the source stays as it is.

    Raises what `imgtools.workflow.images.to_read` and `imgtools.image.newfile.new_file` raise,
    SpaceError, UsageError for options that do not fit, ImageError, ToolError.
    """
    check(how)
    given = {SOURCE: how.source_key, TARGET: how.target_key}
    with (
        to_read([request], untrusted=how.untrusted, unlock=how.source_key is not None) as (disk,),
        private_folder() as folder,
        secrets(given) as keys,
    ):
        if how.snapshot is not None or how.writing.bitmaps:
            refuse_pending(disk)
        _refuse_inside(disk, target)
        header = header_of(disk)
        job = _job(disk, header, target, how, show, folder, keys)
        if how.no_create or target.is_block_device():
            from imgtools.workflow.overwriting import overwrite

            more = overwrite(job, folder)
            stored = target.stat().st_blocks * 512
        else:
            more, stored = (), _make(job, folder)
        return Converted(
            source=disk.request.path or disk.name,
            source_format=header.format,
            target=target,
            target_format=how.target_format,
            virtual_size=job.size,
            actual_size=stored,
            verified=how.verify,
            warnings=(*pending_notices([disk]), *_notices(header, how), *more),
        )


def _refuse_inside(disk: Disk, target: Path) -> None:
    """Raise RefusedError for a copy that would be part of its source, a folder."""
    top = disk.layers[0]
    if top.format != "vvfat":
        return
    if target.absolute().parent.resolve().is_relative_to(top.path.resolve()):
        raise RefusedError(f"{target}: lies in the folder to be copied", hint="write elsewhere")


def _job(
    disk: Disk,
    header: ImageHeader,
    target: Path,
    how: How,
    show: Show,
    folder: Path,
    keys: Secrets,
) -> Job:
    snapshot = None if how.snapshot is None else find_snapshot(header, how.snapshot)
    if how.writing.bitmaps and not header.bitmaps:
        raise UsageError(f"{disk.name}: holds no bitmaps", hint="leave --bitmaps out")
    node = source_node(disk, folder, key=None if how.source_key is None else SOURCE)
    options = complete_options(
        how.target_format,
        how.options,
        compress=how.writing.compress,
        key=how.target_key is not None,
    )
    return Job(
        disk=disk,
        source=Source(node=node, name=disk.name, snapshot=snapshot, keys=keys),
        target=target,
        size=_size(disk, node, keys, snapshot, how),
        options=options,
        how=how,
        show=show,
    )


def _size(disk: Disk, node: Node, keys: Secrets, snapshot: Snapshot | None, how: How) -> int:
    """The size of the copy, in whole sectors as qemu has it."""
    size = opened_size(disk, node, keys)
    if snapshot is not None and snapshot.virtual_size not in (None, size):
        assert snapshot.virtual_size is not None
        if snapshot.virtual_size > size or not _can_cut(how):
            raise UsageError(
                f"{disk.name}: had {snapshot.virtual_size} bytes at that snapshot, and has {size}",
                hint="only a smaller one can be copied, with -O raw or -O qcow2",
            )
        size = snapshot.virtual_size
    return -(-size // 512) * 512


def _can_cut(how: How) -> bool:
    plain = how.target_key is None and not how.no_create and not how.writing.bitmaps
    return plain and how.target_format in ("raw", "qcow2")


def _make(job: Job, folder: Path) -> int:
    """Write a new file, and give it its name when it is whole; returns the bytes it takes."""
    how, sources = job.how, files_of(job.disk)
    with (
        new_file(job.target, force=how.force, sources=sources) as path,
        replacing(job.target),
    ):
        check_space(job)
        with job.show(job.target.name, job.size) as report:
            convert(job.source, path, how.target_format, job.options, how.writing, report)
        if job.size < job.disk.layers[0].virtual_size and job.source.snapshot is not None:
            cut_to(path, how.target_format, job.size)
        check_size(path, how.target_format, job.size)
        made = sorted(path.parent.iterdir())
        if how.verify:
            compare(job, path, folder, tuple(one for one in made if one != path))
        return sum(one.stat().st_blocks * 512 for one in made)


def compare(job: Job, path: Path, folder: Path, extents: tuple[Path, ...] = ()) -> None:
    """Read both sides once more.  Raises ImageError if they differ."""
    how = job.how
    layer = ImageLayer(
        path=path.absolute(),
        format=how.target_format,
        virtual_size=job.size,
        # Those of a VMDK; a new qcow2 has no data file.
        extents=extents if how.target_format == "vmdk" else (),
    )
    node = chain_node([layer], folder, index=1)
    if how.target_format == "luks":
        node.update({"driver": "luks", "key-secret": TARGET})
    elif how.target_key is not None:
        node["encrypt"] = {"format": "luks", "key-secret": TARGET}
    if path == job.target:  # which may be longer than the copy
        node = {"driver": "raw", "read-only": True, "size": job.size, "file": node}
    with job.show(f"compare {job.target.name}", job.size) as report:
        refuse_difference(job.source.node, node, job.target.name, report, keys=job.keys)


def _notices(header: ImageHeader, how: How) -> list[Notice]:
    """What is odd about the source, and what it has and the copy has not."""
    name = os.fspath(header.path)
    notices = [
        Notice(code=problem.code, message=f"{name}: {problem.message}")
        for problem in header.problems
        if not problem.fatal
    ]
    if header.snapshots and how.snapshot is None:
        count = len(header.snapshots)
        notices.append(
            Notice(
                code="image.snapshots-dropped",
                message=f"{name}: the copy has none of its {count} internal snapshots "
                "(-l copies one of them)",
            )
        )
    if header.bitmaps and not how.writing.bitmaps:
        notices.append(
            Notice(
                code="image.bitmaps-dropped",
                message=f"{name}: the copy has none of its {len(header.bitmaps)} bitmaps "
                "(--bitmaps copies them into a qcow2)",
            )
        )
    return notices
