"""From what the user pointed at to guests whose disks are safe to open.

All ``-a`` together are the disks of one guest, as in the virt-* tools; every ``-d`` is a guest of
its own (virt-df adds several domains into one, which nobody wants).  `targets` only names the
guests; `resolve` vets the disks of one, so that a bad guest among many fails alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from imgtools.config import Config, EngineChoice
from imgtools.errors import ImageNotFoundError, ImgtoolsError, NoDomainError, UsageError
from imgtools.guest.opening import Outcome, Session, run_on_engine
from imgtools.model.disks import Disk, DiskRequest, KeySpec
from imgtools.model.notices import Notice

if TYPE_CHECKING:
    from imgtools.domain.disks import DomainDisk
    from imgtools.domain.domains import Domain

T = TypeVar("T")
NO_DISK = "which disk? -a FILE or -d DOMAIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskArguments:
    """What the user pointed at, in the order given.

    At most one of ``disks`` and ``domains`` is filled.  ``connect`` is the libvirt URI, empty
    for libvirt's default.  ``guessed``: the domains are words that name no file here.
    """

    disks: tuple[DiskRequest, ...] = ()
    domains: tuple[str, ...] = ()
    guessed: bool = False
    connect: str = ""
    keys: tuple[KeySpec, ...] = ()
    engine: EngineChoice = "auto"
    untrusted: bool = False
    config: Config = field(default_factory=Config)

    @property
    def empty(self) -> bool:
        """True when no disk and no domain was named."""
        return not self.disks and not self.domains


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A guest to open: its name in listings, its disks as asked for; nothing opened yet.

    ``running`` says that libvirt runs the domain now; ``remote`` is the host whose libvirt
    was asked, when it is not this one.  Picklable, so that a worker process may resolve it.
    """

    name: str
    uuid: str | None = None
    requests: tuple[DiskRequest, ...] = ()
    running: bool = False
    remote: str | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One guest whose every disk has been vetted."""

    name: str
    uuid: str | None
    disks: tuple[Disk, ...]
    notices: tuple[Notice, ...] = ()


def select(arguments: DiskArguments) -> list[Selection]:
    """The guests the user pointed at, in order, vetted.

    Raises UsageError when nothing was named, NoDomainError, LibvirtError and ImageError.
    """
    return [resolve(target, untrusted=arguments.untrusted) for target in targets(arguments)]


def select_one(arguments: DiskArguments) -> Selection:
    """The one guest the user pointed at.  Raises UsageError for several domains."""
    if len(arguments.domains) > 1:
        raise UsageError("this command reads one guest", hint="name one -d DOMAIN")
    return select(arguments)[0]


def targets(arguments: DiskArguments, *, all_domains: bool = False) -> list[Target]:
    """Name the guests without opening any image.

    With ``all_domains`` and nothing named: every domain of the libvirt connection that has
    disks.  Raises UsageError, NoDomainError and LibvirtError.
    """
    if arguments.disks:
        return [Target(name=guest_name(arguments.disks), requests=arguments.disks)]
    if not arguments.domains and not all_domains:
        raise UsageError(NO_DISK)
    try:
        return _domains(arguments)
    except ImgtoolsError as error:
        if not arguments.guessed:
            raise
        name = ", ".join(arguments.domains)
        if isinstance(error, NoDomainError):
            raise NoDomainError(f"no such file, and {error.message}", hint=error.hint) from error
        raise ImageNotFoundError(
            f"{name}: no such file; nor can libvirt be asked for such a domain: {error.message}",
            hint="check the name",
        ) from error


def _domains(arguments: DiskArguments) -> list[Target]:
    from imgtools.domain.connection import open_connection, remote_host
    from imgtools.domain.domains import find_domain, list_domains

    with open_connection(arguments.connect) as connection:
        remote = remote_host(connection)
        if arguments.domains:
            found = [find_domain(connection, name) for name in arguments.domains]
            return [_target_of(domain, remote) for domain in found]
        domains = [domain for domain in list_domains(connection) if domain.disks]
        return [_target_of(domain, remote) for domain in domains]


def guest_name(disks: Sequence[DiskRequest]) -> str:
    """What virt-df calls a guest of these disks: the first one's last component.

    Each further disk adds a ``+``.
    """
    full = disks[0].name
    last = full.rpartition("/")[2]
    # A URI that ends in "/" has no last component; a file name never does.
    return (last or full) + "+" * (len(disks) - 1)


def resolve(target: Target, *, untrusted: bool = False) -> Selection:
    """Vet every disk of ``target``.

    Raises ImageError and its kin; for a domain of another host whose images are not here,
    ImageNotFoundError saying so.
    """
    from imgtools.workflow.opening import pending_notices, resolve_disks

    if not target.requests:
        why = target.notices[0].message if target.notices else f"{target.name}: no disks"
        raise NoDomainError(why, hint=f"see: virsh domblklist {target.name}")
    if target.remote is not None:
        _require_local(target, target.remote)
    disks = tuple(resolve_disks(target.requests, untrusted=untrusted))
    if target.running:
        disks = tuple(dataclasses.replace(disk, in_use=True) for disk in disks)
    notices = (*target.notices, *pending_notices(disks))
    return Selection(name=target.name, uuid=target.uuid, disks=disks, notices=notices)


def run_selected(
    task: Callable[[Session], T], selection: Selection, arguments: DiskArguments
) -> Outcome[T]:
    """Run ``task`` over ``selection`` on the engine that ``arguments`` choose.

    The outcome's warnings begin with what was noticed while selecting.
    """
    outcome = run_on_engine(
        task,
        selection.disks,
        name=selection.name,
        choice=arguments.engine,
        keys=arguments.keys,
        config=arguments.config,
    )
    return dataclasses.replace(outcome, warnings=(*selection.notices, *outcome.warnings))


def _require_local(target: Target, host: str) -> None:
    for request in target.requests:
        if request.path is not None and not request.path.exists():
            raise ImageNotFoundError(
                f"{request.path}: the disk of domain {target.name} is on {host}, not here",
                hint=f"there: qemu-nbd -r -t -f FORMAT {request.path}; here: -a nbd://{host}",
            )


def _target_of(domain: Domain, remote: str | None) -> Target:
    requests, notices = [], []
    for disk in domain.disks:
        if disk.unsupported is None:
            requests.append(_request_of(disk))
        else:
            notices.append(
                Notice(
                    code="domain.disk-unsupported",
                    message=f"domain {domain.name}: disk {disk.target} is left out: "
                    f"{disk.unsupported}",
                )
            )
    if remote is not None:
        notices.append(
            Notice(
                code="domain.remote",
                message=f"domain {domain.name} is on {remote}: its images are opened at the same "
                "paths on this host",
            )
        )
    if domain.saved:
        notices.append(
            Notice(
                code="domain.saved-state",
                message=f"domain {domain.name} has a saved state (virsh managedsave): "
                "what is on disk may be inconsistent",
            )
        )
    return Target(
        name=domain.name,
        uuid=domain.uuid,
        requests=tuple(requests),
        running=domain.active,
        remote=remote,
        notices=tuple(notices),
    )


def _request_of(disk: DomainDisk) -> DiskRequest:
    path = Path(disk.path) if disk.path is not None else None
    return DiskRequest(path=path, uri=disk.uri, format=disk.format, block_size=disk.block_size)
