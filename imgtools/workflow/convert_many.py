"""Convert several disks, or those of a domain, into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imgtools.appliance.remote import shown
from imgtools.errors import ImgtoolsError, InUseError, NoDomainError, UsageError
from imgtools.model.disks import DiskRequest
from imgtools.model.notices import Notice
from imgtools.workflow.converting import Converted, How, Show, check, convert_image
from imgtools.workflow.selection import DiskArguments, targets

# What files of a format are called; "raw" in a suffix means to us that the content has no say.
SUFFIXES = {"vpc": "vhd", "parallels": "hdd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A disk that was not converted; its target is as it was."""

    source: str
    target: Path
    error: ImgtoolsError


def disks_of_domain(
    name: str, *, connect: str
) -> tuple[tuple[DiskRequest, ...], tuple[Notice, ...]]:
    """The disks of a libvirt domain that can be opened, and what to say of the others.

    Raises NoDomainError, InUseError for one that runs, LibvirtError.
    """
    target = targets(DiskArguments(domains=(name,), connect=connect))[0]
    if not target.requests:
        why = target.notices[0].message if target.notices else f"{name}: no disks"
        raise NoDomainError(why, hint=f"see: virsh domblklist {name}")
    if target.running:
        raise InUseError(f"domain {name} is running", hint=f"virsh shutdown {name}")
    return target.requests, target.notices


def into_folder(
    requests: Sequence[DiskRequest], folder: Path, how: How, show: Show
) -> list[Converted | Failed]:
    """Convert every disk to ``folder``; one that fails stops no other.

    Raises UsageError when two disks would have one name.
    """
    check(how)
    named = [(request, folder / _name(request, how)) for request in requests]
    _refuse_clash([target for _, target in named])
    return [_attempt(request, target, how, show) for request, target in named]


def _attempt(request: DiskRequest, target: Path, how: How, show: Show) -> Converted | Failed:
    try:
        return convert_image(request, target, how, show)
    except ImgtoolsError as error:
        source = request.name if request.uri is None else shown(request.uri)
        return Failed(source=source, target=target, error=error)


def _name(request: DiskRequest, how: How) -> str:
    suffix = SUFFIXES.get(how.target_format, how.target_format)
    # Of a URL the path; what comes behind it may name a socket.
    path = request.path or Path(unquote(urlsplit(request.name).path))
    return f"{path.stem or 'disk'}.{suffix}"


def _refuse_clash(names: Sequence[Path]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two of the disks would become {name}", hint="convert them one by one"
            )
