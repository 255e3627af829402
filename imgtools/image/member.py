"""One image of a folder as the doctor of backing chains sees it: the few facts of its header."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgtools.errors import ImageError, ImgtoolsError
from imgtools.image.chain import MAX_EXTENTS
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.locks import LockState, state_of
from imgtools.image.plausible import RAW_SUFFIXES, host_uses_device, looks_like_disk
from imgtools.image.reference import resolve_reference
from imgtools.image.signature import detect
from imgtools.image.source import Source, open_source
from imgtools.image.vet import vet_source
from imgtools.image.vet_qcow2 import MAX_L1_BYTES

Identity = tuple[int, int]

FORMAT_SUFFIXES = frozenset({".qcow2", ".qcow", ".qed", ".vdi", ".vhdx", ".vmdk"})
"""Suffixes of formats that always begin with a header."""
SUFFIXES = FORMAT_SUFFIXES | RAW_SUFFIXES | {".vhd", ".vpc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What is kept of an image: sizes in bytes, ``mtime_ns`` of the newest of its files.

    ``virtual_size`` is None where the header makes no sense.  ``parts`` are its external data file
    or extents, ``plausible`` is False for a raw file that looks like no disk at all, or a device
    that the host itself uses.  References are bytes as stored, see `ImageHeader`.
    """

    path: Path
    identity: Identity
    format: str
    version: int | None = None
    virtual_size: int | None = None
    file_size: int = 0
    actual_size: int = 0
    mtime_ns: int = 0
    backing_file: bytes | None = None
    backing_format: str | None = None
    needs_parent: bool = False
    parts: tuple[Path, ...] = ()
    snapshots: int = 0
    problems: tuple[Problem, ...] = ()
    locks: LockState = field(default_factory=LockState)
    plausible: bool = True

    @property
    def has_parent(self) -> bool:
        """True when the image rests on another one, named or not."""
        return self.backing_file is not None or self.needs_parent

    @property
    def fatal(self) -> Problem | None:
        """The first problem that forbids opening the image."""
        return next((problem for problem in self.problems if problem.fatal), None)


def look(
    path: Path, stated: str | None = None, *, only_images: bool = False, untrusted: bool = False
) -> Member | None:
    """Read the header of ``path``; a damaged one gives a member with a fatal problem.

    With ``only_images``: None for a file that neither its content nor its suffix calls an image.
    With ``untrusted`` nothing outside the image's folder is even asked for its size.  Raises
    ImageNotFoundError, ImageUnreadableError, and ImageTruncatedError for an empty file.
    """
    with open_source(path) as source:
        if only_images and path.suffix.lower() not in SUFFIXES and detect(source) == "raw":
            return None
        return _member(source, stated, untrusted=untrusted)


def _member(source: Source, stated: str | None, *, untrusted: bool) -> Member:
    status = os.fstat(source.fd)
    basics: dict[str, Any] = {
        "path": source.path,
        "identity": source.identity,
        "file_size": source.size,
        "actual_size": status.st_blocks * 512,
        "mtime_ns": status.st_mtime_ns,
        "locks": state_of(source.fd, holders=False),
    }
    try:
        header = vet_source(source, stated)
    except ImageError as error:
        message = error.message.removeprefix(f"{source.path}: ")
        problem = Problem(code=error.code, message=message)
        return Member(**basics, format=stated or detect(source), problems=(problem,))
    parts, problems = _parts(header)
    stats = list(_stats(one for one in parts if not (untrusted and outside(one, header.path))))
    basics["mtime_ns"] = max([status.st_mtime_ns, *(one.st_mtime_ns for one in stats)])
    basics["actual_size"] = sum(one.st_blocks for one in [status, *stats]) * 512
    return Member(
        **basics,
        format=header.format,
        version=header.version,
        virtual_size=header.virtual_size,
        backing_file=header.backing_file,
        backing_format=header.backing_format,
        needs_parent=header.needs_parent,
        parts=parts,
        snapshots=len(header.snapshots),
        problems=(*header.problems, *problems),
        plausible=(header.format != "raw" or looks_like_disk(source))
        and not host_uses_device(source),
    )


def _parts(header: ImageHeader) -> tuple[tuple[Path, ...], list[Problem]]:
    """The further files of the image, by the names in it; those that lie elsewhere are left."""
    stored = [(header.data_file, "external data file")] if header.data_file is not None else []
    stored += [(one.file, "extent") for one in header.extents[:MAX_EXTENTS] if one.file is not None]
    paths: dict[Path, None] = {}
    problems = []
    for name, what in stored:
        try:
            paths[resolve_reference(name, header.path, what)] = None
        except ImgtoolsError as error:
            text = error.message.removeprefix(f"{header.path}: ")
            problems.append(Problem(code=error.code, message=text))
    return tuple(paths), problems


def outside(target: Path, image: Path) -> bool:
    """True when a file lies outside the folder of the image that names it.  Opens nothing."""
    folder = os.path.realpath(image.absolute().parent)
    return not Path(os.path.realpath(target)).is_relative_to(folder)


def _stats(parts: Iterable[Path]) -> Iterator[os.stat_result]:
    for path in parts:
        try:
            yield path.stat()
        except OSError:
            continue


def holds_data(member: Member) -> bool:
    """False only for a qcow2 overlay that is certain to hold nothing of its own.

    Such a one is fresh, or was emptied by a commit: whatever happens to its parent, it fits.  Its
    L1 table (docs/interop/qcow2.rst of qemu: entries at 36, offset at 40) is all zeros.
    """
    if member.format != "qcow2" or member.fatal is not None:
        return True
    try:
        with open_source(member.path) as source:
            entries, offset = struct.unpack(">IQ", source.read(36, 12, "the end of its header"))
            if entries * 8 > MAX_L1_BYTES:
                return True
            return bool(source.read(offset, entries * 8, "its L1 table").strip(b"\0"))
    except ImgtoolsError:
        return True
