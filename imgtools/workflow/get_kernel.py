"""The newest kernel of a guest and its initramfs, copied to this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import GuestFileNotFoundError, OutputError, UsageError
from imgtools.guest.inspection import Kernel
from imgtools.guest.linux.boot import find_kernels
from imgtools.guest.linux.findings import Findings, encode
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree
from imgtools.workflow.files import guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one
from imgtools.workflow.staging import Keep, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedKernel:
    """What was copied: the kernel's version, and (guest path, host path) of each file."""

    version: str
    files: tuple[tuple[bytes, Path], ...]


def get_kernel(
    arguments: DiskArguments,
    place: Path,
    *,
    unversioned: bool = False,
    prefix: str = "",
    force: bool = False,
) -> Outcome[CopiedKernel]:
    """Copy the newest kernel and its initramfs into the folder ``place``.

    ``unversioned`` cuts names at the first dash, ``prefix`` goes in front with a dash, as in
    virt-get-kernel.  Raises GuestFileNotFoundError when the guest has no kernel, RefusedError
    for a file that is there already (unless ``force``), OutputError.
    """
    if "/" in prefix or "\0" in prefix:
        raise UsageError(f"--prefix {prefix}: a prefix is part of a file name")
    selection = select_one(arguments)
    stage = Stage(place, Keep(owners=False, devices=False, capabilities=False))

    def task(session: Session) -> CopiedKernel:
        stage.restart()
        tree = guest_tree(session, ())
        kernel = _newest(session, tree)
        files = []
        for path, name in _files(kernel):
            target = _target(name, unversioned=unversioned, prefix=prefix)
            with tree.open(path) as source:
                stage.file(target, tree.stat(path), {}, source, lambda _count: None)
            files.append((path, place / os.fsdecode(target)))
        return CopiedKernel(version=kernel.version, files=tuple(files))

    try:
        outcome = run_selected(task, selection, arguments)
        stage.commit(force=force)
    except OSError as error:
        raise OutputError(f"{place}: {error.strerror or error}") from error
    finally:
        stage.close()
    return outcome


def _newest(session: Session, tree: GuestTree) -> Kernel:
    findings = Findings(session.name)
    kernels = find_kernels(tree, findings)
    for warning in findings.warnings:
        session.warn(warning.code, warning.message)
    if not kernels:
        raise GuestFileNotFoundError(
            f"{session.name}: no kernel in /boot or beside its modules",
            hint="imgtools ls -a IMAGE /boot shows what is there",
        )
    return kernels[-1]


def _files(kernel: Kernel) -> Iterator[tuple[bytes, bytes]]:
    """Guest path and plain name of the kernel and, if it has one, of its initramfs."""
    path = encode(kernel.path)
    name = path.rpartition(b"/")[2]
    # Beside its modules a kernel has no version in its name.
    yield path, name if path.startswith(b"/boot/") else name + b"-" + encode(kernel.version)
    if kernel.initramfs:
        initramfs = encode(kernel.initramfs)
        yield initramfs, initramfs.rpartition(b"/")[2]


def _target(name: bytes, *, unversioned: bool, prefix: str) -> bytes:
    if unversioned:
        name = name.partition(b"-")[0]
    return os.fsencode(prefix) + b"-" + name if prefix else name
