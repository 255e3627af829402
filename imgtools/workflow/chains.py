"""The doctor of backing chains: look at a folder of images, and mend what is certain."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgtools.errors import ImageNotFoundError, ImgtoolsError, UsageError
from imgtools.image.forest import Forest, grow
from imgtools.image.member import Identity
from imgtools.image.newfile import leftover
from imgtools.image.scan import Scan, scan
from imgtools.model.notices import Notice
from imgtools.workflow.chain_findings import Finding, findings_of
from imgtools.workflow.shellwords import command_line

if TYPE_CHECKING:
    from imgtools.domain.uses import Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What to look at: a folder or an image of it, or a libvirt pool."""

    place: Path | None = None
    pool: str | None = None
    connect: str | None = None
    recursive: bool = False
    untrusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """The forest, who uses which image, and the findings, with what was done about each."""

    folder: Path
    forest: Forest
    uses: dict[Identity, list[Use]]
    shown: frozenset[Identity]
    findings: tuple[Examined, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def left(self) -> int:
        """How many findings are not mended."""
        return sum(1 for one in self.findings if not one.mended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A finding; ``mended`` when --fix did so, ``failure`` when it tried and could not."""

    finding: Finding
    mended: bool = False
    failure: str | None = None


def check_up(where: Where, *, fix: bool = False) -> Checkup:
    """Look, and with ``fix`` mend what needs no choice.

    Raises ImageNotFoundError and ImageUnreadableError for a place that is not there, and what
    libvirt has to say of a pool or of a connection that was named.
    """
    folder, image = _place(where)
    uses = _uses(where)
    formats = {one: _stated(found) for one, found in uses.items()}
    found = scan(folder, recursive=where.recursive, untrusted=where.untrusted, formats=formats)
    forest = grow(found, untrusted=where.untrusted, formats=formats)
    shown = set(forest.members)
    if image is not None:
        shown = _tree_of(forest, image)
    interrupted, hidden = _interrupted(found, where)
    findings = [*interrupted, *_leftovers(found, where, folder)]
    paths = {forest.path(one) for one in shown}
    findings = [one for one in findings if image is None or one.image in paths]
    findings += [one for one in findings_of(forest, hidden) if one.image in paths]
    return Checkup(
        folder=folder,
        forest=forest,
        uses=uses,
        shown=frozenset(shown),
        findings=tuple(_mend(one, fix=fix) for one in findings),
        notices=tuple(found.notices),
    )


def _place(where: Where) -> tuple[Path, Path | None]:
    """The folder to scan, and the image that was named."""
    if where.pool is not None:
        if where.place is not None:
            raise UsageError("name a folder, an image or a pool, not two of them")
        from imgtools.domain.uses import pool_folder

        return pool_folder(where.pool, where.connect), None
    place = (where.place or Path()).absolute()
    if place.is_dir():
        return place, None
    if not os.path.lexists(place):
        raise ImageNotFoundError(f"{place}: no such image or folder", hint="check the name")
    return place.parent, place


def _tree_of(forest: Forest, image: Path) -> set[Identity]:
    try:
        status = image.stat()
    except OSError as error:
        raise ImageNotFoundError(f"{image}: {error.strerror}", hint="check the name") from None
    identity = (status.st_dev, status.st_ino)
    if identity not in forest.members and identity not in forest.parts:
        raise ImageNotFoundError(
            f"{image}: is not an image", hint="name an image, or the folder that it is in"
        )
    return forest.tree_of(identity)


def _uses(where: Where) -> dict[Identity, list[Use]]:
    from imgtools.domain.uses import uses

    found: dict[Identity, list[Use]] = {}
    for use in uses(where.connect):
        try:
            status = os.stat(use.path)  # noqa: PTH116 (libvirt's text, perhaps of another host)
        except (OSError, ValueError):
            continue
        found.setdefault((status.st_dev, status.st_ino), []).append(use)
    return found


def _stated(uses: Sequence[Use]) -> str | None:
    """The format that a domain says; that of today before those of its snapshots."""
    ordered = sorted(uses, key=lambda use: use.snapshot is not None)
    return next((use.format for use in ordered if use.format is not None), None)


def _interrupted(found: Scan, where: Where) -> tuple[list[Finding], set[Path]]:
    """What interrupted changes left, and the overlays of all changes, which are theirs."""
    from imgtools.transaction import record as records
    from imgtools.transaction.recovery import find_interrupted
    from imgtools.workflow.opening import finish_interrupted

    findings: list[Finding] = []
    hidden: set[Path] = set()
    for path in sorted(found.records):
        image = records.image_of(path)
        if image is None:
            continue
        command = command_line(["imgtools", "recover", image])
        try:
            record = records.find(image)
            change = find_interrupted(image)
        except ImgtoolsError as error:
            text = error.message
            findings.append(
                Finding(code="chain.record", image=image, message=text, hint=error.hint)
            )
            continue
        if record is None or change is None:
            continue
        hidden.update(Path(disk.overlay) for disk in record.disks)
        if change.action == "busy":
            continue

        def mend(image: Path = image) -> None:
            finish_interrupted(image, untrusted=where.untrusted)

        findings.append(
            Finding(
                code="chain.interrupted",
                image=image,
                message=f"{change.command} of {change.started} was interrupted: to be "
                f"{_TO_DO[change.action]}",
                command=command,
                mend=None if where.untrusted else mend,
            )
        )
    return findings, hidden


_TO_DO = {"finish": "finished", "discard": "discarded", "clean": "cleaned up"}


def _leftovers(found: Scan, where: Where, folder: Path) -> Iterator[Finding]:
    recursive = ["--recursive"] if where.recursive else []
    command = command_line(["imgtools", "image", "chain", "--fix", *recursive, folder])
    for path in sorted(found.partials):
        if not leftover(path):
            continue

        def mend(path: Path = path) -> None:
            leftover(path, remove=True)

        yield Finding(
            code="chain.leftover",
            image=path,
            message="what a killed run had half made; nobody is at work in it",
            command=command,
            mend=mend,
        )


def _mend(finding: Finding, *, fix: bool) -> Examined:
    if not fix or finding.mend is None:
        return Examined(finding=finding)
    try:
        finding.mend()
    except ImgtoolsError as error:
        return Examined(finding=finding, failure=error.message)
    return Examined(finding=finding, mended=True)
