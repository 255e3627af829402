"""The backing file of a new overlay: found from where the overlay will lie, vetted, held."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ImageNotFoundError,
    ImageUnsupportedError,
    RefusedError,
    UntrustedReferenceError,
    UsageError,
)
from imgtools.image.plausible import host_uses_device, looks_like_disk
from imgtools.image.reference import PROTOCOLS, protocol_of
from imgtools.image.signature import detect
from imgtools.image.source import open_source
from imgtools.image.vet import vet_source
from imgtools.model.disks import KNOWN_FORMATS, DiskRequest
from imgtools.model.notices import Notice
from imgtools.workflow.images import files_of, to_read

MAX_NAME = 1023  # bytes that a qcow2 header has for it (docs/interop/qcow2.txt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """``stored``: the name as it goes into the header; ``size`` of its disk in bytes.

    ``files`` are those that the new image will rest on.
    """

    stored: str
    format: str
    size: int
    files: tuple[Path, ...]
    warnings: tuple[Notice, ...]


@contextlib.contextmanager
def use_backing(target: Path, name: str | None, stated: str | None) -> Iterator[Backing | None]:
    """The backing file ``name`` of the image ``target``, which nobody changes during the block.

    ``stated`` is the format that the user says it has.  Raises ImageNotFoundError, ImageError and
    its kin, UntrustedReferenceError, InUseError, UsageError.
    """
    if name is None:
        if stated is not None:
            raise UsageError(f"-F {stated}: there is no backing file", hint="name one with -b")
        yield None
        return
    path = _find(target, name)
    image_format, warnings = _vetted(path, _stated(stated))
    request = DiskRequest(path=path, format=image_format)
    with to_read([request], untrusted=False) as (disk,):
        if disk.pending:
            raise RefusedError(
                f"{path}: a change of it was interrupted", hint=f"first: imgtools recover {path}"
            )
        yield Backing(
            stored=_stored(name),
            format=image_format,
            size=-(-disk.layers[0].virtual_size // 512) * 512,
            files=tuple(files_of(disk)),
            warnings=(*warnings, *_other_file(path, name)),
        )


def _stated(name: str | None) -> str | None:
    name = "vpc" if name == "vhd" else name
    if name is not None and name not in KNOWN_FORMATS:
        known = ", ".join(KNOWN_FORMATS)
        raise UsageError(f"-F {name}: unknown image format", hint=f"known: {known}")
    return name


def _find(target: Path, name: str) -> Path:
    """The file that ``name`` means in the header of ``target``."""
    if not name or len(os.fsencode(_stored(name))) > MAX_NAME:
        raise UsageError(f"-b: the name must have 1 to {MAX_NAME} bytes")
    folder = target.absolute().parent
    path = folder / name
    if os.path.lexists(path):
        return path
    protocol = os.fsdecode(protocol_of(os.fsencode(name)) or b"")
    if protocol.lower() in PROTOCOLS or protocol == "file":
        raise UntrustedReferenceError(
            f"-b {name}: only files and block devices can be backing files here",
            hint="name the file by its path, or copy it here first",
        )
    if Path(name).exists():
        better = os.path.relpath(Path(name).absolute(), folder)
        raise ImageNotFoundError(
            f"-b {name}: is looked for in the folder of the new image, {folder}, where it is not",
            hint=f"say -b {better}, or its absolute path",
        )
    raise ImageNotFoundError(f"-b {name}: no such file: {path}", hint="check the name")


def _stored(name: str) -> str:
    # qemu takes what stands before a colon for a protocol, unless a slash comes first.
    return f"./{name}" if protocol_of(os.fsencode(name)) is not None else name


def _vetted(path: Path, stated: str | None) -> tuple[str, tuple[Notice, ...]]:
    with open_source(path) as source:
        if stated not in (None, "raw", found := detect(source)):
            raise UsageError(f"-F {stated}: {path} is {found}", hint=f"-F {found}, or leave it out")
        header = vet_source(source, stated)
        disk_like = header.format != "raw" or looks_like_disk(source)
        if host_uses_device(source):
            raise UntrustedReferenceError(f"{path}: this host itself uses that device")
    if not disk_like:
        raise UntrustedReferenceError(
            f"{path}: is not a disk image", hint="no command would open an overlay on it"
        )
    if header.format == "luks":
        raise ImageUnsupportedError(
            f"{path}: is a LUKS container, whose key no overlay holds",
            hint="-F raw, if the guest itself unlocks it",
        )
    warnings = tuple(
        Notice(code=problem.code, message=f"{path}: {problem.message}")
        for problem in header.problems
        if not problem.fatal
    )
    return header.format, warnings


def _other_file(path: Path, name: str) -> tuple[Notice, ...]:
    """A relative name that also means another file here may not be the one that was meant."""
    here = Path(name)
    if here.is_absolute() or not here.exists() or here.samefile(path):
        return ()
    text = f"-b {name}: is {path}, beside the new image, not the file of that name in this folder"
    return (Notice(code="image.backing-elsewhere", message=text),)
