"""Free space of the filesystems of guests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    EXIT_FAILED,
    DirectError,
    GuestOperationError,
    ImageError,
    ImgtoolsError,
)
from imgtools.guest.opening import Session
from imgtools.model import EngineName, Notice, StatVFS
from imgtools.workflow.selection import DiskArguments, Target, resolve, run_selected, targets

# What one reader may need when it has to launch an appliance, in MiB.
_MIB_PER_JOB = 768


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemUsage:
    """Space of one filesystem; ``space`` is what statvfs(3) would say in the guest."""

    device: str
    type: str
    space: StatVFS


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a guest among several could not be read: an `ImgtoolsError` as plain values."""

    code: str
    message: str
    hint: str | None = None
    exit_code: int = EXIT_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestUsage:
    """The filesystems of one guest, or ``failure``."""

    name: str
    uuid: str | None
    engine: EngineName | None = None
    reason: str = ""
    filesystems: tuple[FilesystemUsage, ...] = ()
    warnings: tuple[Notice, ...] = ()
    failure: Failure | None = None


def df(arguments: DiskArguments, *, jobs: int = 0) -> Iterator[GuestUsage]:
    """Yield the usage of every guest, in order; all domains of libvirt when none is named.

    At most ``jobs`` guests are read at a time (0: the configuration's, else as many as
    processors and memory allow).  Of several guests, one that cannot be read yields its failure
    and stops no other; a single one raises.  Naming them may raise LibvirtError, NoDomainError.
    """
    chosen = targets(arguments, all_domains=True)
    if len(chosen) == 1:
        yield _usage(chosen[0], arguments)
        return
    workers = min(len(chosen), jobs or arguments.config.jobs or _default_jobs())
    if workers <= 1:
        yield from (guest_usage(target, arguments) for target in chosen)
        return
    yield from _in_parallel(chosen, arguments, workers)


def _in_parallel(
    chosen: Sequence[Target], arguments: DiskArguments, workers: int
) -> Iterator[GuestUsage]:
    # Processes, since reading direct is Python's own work; and not forked ones, since a fork
    # of a process with threads (libvirt has some) may hang.
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(guest_usage, target, arguments) for target in chosen]
        try:
            for target, future in zip(chosen, futures, strict=True):
                try:
                    yield future.result()
                except Exception as error:  # noqa: BLE001 (a worker that died, whatever the way)
                    yield _failed(target, ImgtoolsError(f"the reader stopped: {error}"))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def guest_usage(target: Target, arguments: DiskArguments) -> GuestUsage:
    """The usage of one guest; errors come back as its ``failure``."""
    try:
        return _usage(target, arguments)
    except ImgtoolsError as error:
        return _failed(target, error)


def _usage(target: Target, arguments: DiskArguments) -> GuestUsage:
    selection = resolve(target, untrusted=arguments.untrusted)
    outcome = run_selected(filesystem_usage, selection, arguments)
    return GuestUsage(
        name=selection.name,
        uuid=selection.uuid,
        engine=outcome.engine,
        reason=outcome.reason,
        filesystems=tuple(outcome.result),
        warnings=outcome.warnings,
    )


def filesystem_usage(session: Session) -> list[FilesystemUsage]:
    """Space of every mountable filesystem; one that does not mount costs a warning."""
    usages = []
    for filesystem in session.engine.storage().filesystems:
        if not filesystem.mountable:
            continue
        try:
            space = session.engine.mount(filesystem.device).statvfs()
        except DirectError:
            raise
        except (GuestOperationError, ImageError) as error:
            session.warn("filesystem.unreadable", f"{filesystem.device}: {error.message}")
            continue
        usages.append(FilesystemUsage(device=filesystem.device, type=filesystem.type, space=space))
    return usages


def _failed(target: Target, error: ImgtoolsError) -> GuestUsage:
    failure = Failure(
        code=error.code, message=error.message, hint=error.hint, exit_code=error.exit_code
    )
    return GuestUsage(name=target.name, uuid=target.uuid, warnings=target.notices, failure=failure)


def _default_jobs() -> int:
    processors = len(os.sched_getaffinity(0))
    return max(1, min(processors, _available_mib() // _MIB_PER_JOB))


def _available_mib() -> int:
    """MemAvailable of /proc/meminfo (proc(5)), in MiB; one job's worth where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) // 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return _MIB_PER_JOB
