"""Free space of the filesystems of guests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgtools.errors import (
    EXIT_FAILED,
    DirectError,
    GuestOperationError,
    ImageError,
    ImgtoolsError,
)
from imgtools.guest.opening import Session
from imgtools.model.engine import EngineName
from imgtools.model.files import StatVFS
from imgtools.model.notices import Notice
from imgtools.workflow.selection import DiskArguments, Target, resolve, run_selected, targets

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# What one reader may need when it has to launch an appliance, in MiB.
_MIB_PER_JOB = 768
GRACE = 5.0  # seconds that interrupted readers get to clean up


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
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_obey_the_parent)
    try:
        futures = [pool.submit(guest_usage, target, arguments) for target in chosen]
        for target, future in zip(chosen, futures, strict=True):
            try:
                yield future.result()
            except Exception as error:  # noqa: BLE001 (a worker that died, whatever the way)
                yield _failed(target, ImgtoolsError(f"the reader stopped: {error}"))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _end(multiprocessing.active_children())
        raise
    pool.shutdown()


def _end(children: Sequence[BaseProcess]) -> None:
    """Interrupted: let the workers clean up, but wait for none that is deep in a launch."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def _obey_the_parent() -> None:
    """In a worker: the parent alone answers Ctrl-C; its SIGTERM ends us with clean-up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


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
