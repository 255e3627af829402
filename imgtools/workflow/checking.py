"""Check images, repair them with a way back, and go that way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import (
    ImageError,
    ImageUnsupportedError,
    ImgtoolsError,
    RefusedError,
    UsageError,
)
from imgtools.image.chain import Link, error_of, follow_chain
from imgtools.image.check import Check, Repair, refuse_endless, run_check
from imgtools.image.children import overlays_of
from imgtools.image.header import ImageHeader, Problem
from imgtools.image.hold import holding
from imgtools.image.kept import changed_ranges, keep_all, keep_changed, read_kept, restore
from imgtools.image.newfile import new_file, refuse_existing
from imgtools.model.disks import DiskRequest
from imgtools.model.notices import Notice
from imgtools.nodes import chain_node
from imgtools.workflow.held import held, refuse_running
from imgtools.workflow.images import private_folder
from imgtools.workflow.opening import finish_interrupted, interrupted_notices
from imgtools.workflow.shellwords import command_line

# What a check is for, although no other command opens such an image.
_CHECKABLE = frozenset({"qcow2.truncated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One image: its format, what was found (or why nothing was), and what was kept of it."""

    name: str
    format: str | None = None
    check: Check | None = None
    problem: Problem | None = None
    kept: Path | None = None
    failure: ImgtoolsError | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def fine(self) -> bool:
        """True when nothing is wrong with it (any more)."""
        return self.check is not None and self.check.state == "ok" and self.problem is None


def check(
    request: DiskRequest, repair: Repair | None, *, keep_at: Path | None, untrusted: bool
) -> Checked:
    """Check one image, or repair it; what fails is in the result."""
    try:
        if repair is None:
            return _look(request, untrusted=untrusted)
        return _repair(request, repair, keep_at, untrusted=untrusted)
    except ImgtoolsError as error:
        return Checked(name=request.name, failure=error)


def undo(request: DiskRequest, kept_file: Path, *, force: bool) -> None:
    """Give an image back what a repair changed.

    Raises JournalError for a bad kept file, RefusedError when the image was used since, InUseError.
    """
    path = _path(request)
    kept = read_kept(kept_file)
    refuse_running([path])
    with held([path]):
        restore(kept, path, force=force)


def _look(request: DiskRequest, *, untrusted: bool) -> Checked:
    path = _path(request)
    notices = interrupted_notices(path)
    link = _link(request, untrusted=untrusted)
    with holding([(one, False) for one in (path, *link.extents)]), private_folder() as folder:
        link = _link(request, untrusted=untrusted)
        found = run_check(path, chain_node([link.layer()], folder))
    if found.counts_only:
        line = command_line(["imgtools", "recover", path])
        message = (
            f"{path}: counts of clusters are too high, as a killed run leaves them; no data is at "
            f"risk, and this sets them right: {line}"
        )
        notices.append(Notice(code="image.counts", message=message))
    return _checked(request, link.header, found, notices=tuple(notices))


def _repair(
    request: DiskRequest, repair: Repair, keep_at: Path | None, *, untrusted: bool
) -> Checked:
    path = _path(request)
    target = _kept_path(path, keep_at)
    refuse_running([path])
    finish_interrupted(path, untrusted=untrusted)
    link = _link(request, untrusted=untrusted)
    files = (path, *link.extents)
    with held(files) as holds, private_folder() as folder:
        link = _link(request, untrusted=untrusted)
        before = _before(request, link, folder)
        if before is not None and before.fine:
            return before
        with new_file(target, sources=files) as part:
            keep_all(path, part)
        with _way_back(path, target):
            node = chain_node([link.layer()], folder, writable=True)
            found = run_check(path, node, repair)
            for hold in holds:
                hold.sync()
            kept = _settle(path, target, mtime=repair == "leaks")
        header = _link(request, untrusted=untrusted).header
    notices = _of_overlays(path) if repair == "all" and kept is not None else ()
    return _checked(request, header, found, kept=kept, notices=notices)


def _of_overlays(path: Path) -> tuple[Notice, ...]:
    """A warning when overlays rest on an image of which the guest's data may have changed."""
    found = overlays_of(path.absolute())
    if not found:
        return ()
    names = ", ".join(str(one) for one in found[:5])
    message = f"{path}: overlays rest on it, and may not fit what was repaired: {names}"
    return (Notice(code="image.overlays", message=message),)


def _before(request: DiskRequest, link: Link, folder: Path) -> Checked | None:
    """What a check finds; None when only a repair can open the image (the log of a VHDX)."""
    try:
        found = run_check(link.header.path, chain_node([link.layer()], folder))
    except ImageUnsupportedError:
        raise
    except ImageError:
        return None
    return _checked(request, link.header, found)


def _settle(path: Path, target: Path, *, mtime: bool) -> Path | None:
    """Leave out of the kept copy what the repair did not change; None if it changed nothing.

    With ``mtime`` the image's time of writing is put back: the guest's data is as it was, and
    overlays still fit.
    """
    kept = read_kept(target)
    ranges = changed_ranges(kept, path)
    if mtime or (not ranges and path.stat().st_size == kept.size):
        os.utime(path, ns=(path.stat().st_atime_ns, kept.mtime_ns))
    if not ranges and path.stat().st_size == kept.size:
        target.unlink()
        return None
    # A copy that holds everything is as good.
    with contextlib.suppress(ImgtoolsError), new_file(target, force=True) as part:
        keep_changed(kept, path, part, ranges)
    return target


@contextlib.contextmanager
def _way_back(path: Path, kept: Path) -> Iterator[None]:
    """Say in the hint of an error, or of Ctrl-C, how the image is given back what it was.

    Where the image was not written to yet, the copy is of no use and goes.
    """
    try:
        yield
    except BaseException as error:
        if not _written_to(path, kept):
            kept.unlink(missing_ok=True)
            raise
        undoing = command_line(["imgtools", "image", "check", "--restore", kept, path])
        hint = f"undo what was done of it: {undoing}"
        if isinstance(error, ImgtoolsError):
            error.hint = hint
        else:
            error.add_note(hint)
        raise


def _written_to(path: Path, kept: Path) -> bool:
    try:
        before, now = read_kept(kept), path.stat()
    except (ImgtoolsError, OSError):
        return True
    return (now.st_size, now.st_mtime_ns) != (before.size, before.mtime_ns)


def _link(request: DiskRequest, *, untrusted: bool) -> Link:
    """The image alone, vetted; its chain is not needed.  Raises as `resolve_disk` does."""
    link = next(follow_chain(_path(request), request.format, untrusted=untrusted))
    for problem in link.header.problems:
        if problem.fatal and problem.code not in _CHECKABLE:
            raise error_of(link.header.path, problem)
    refuse_endless(link.header)
    return link


def _checked(
    request: DiskRequest,
    header: ImageHeader,
    found: Check,
    *,
    kept: Path | None = None,
    notices: tuple[Notice, ...] = (),
) -> Checked:
    marked = ("qcow2.dirty", "qcow2.corrupt", *_CHECKABLE)
    problem = next((one for one in header.problems if one.code in marked), None)
    return Checked(
        name=request.name,
        format=header.format,
        check=found,
        problem=problem,
        kept=kept,
        notices=notices,
    )


def _path(request: DiskRequest) -> Path:
    if request.path is None:
        raise UsageError(f"{request.name}: is not a file of this host", hint="name a file")
    return request.path


def _kept_path(path: Path, keep_at: Path | None) -> Path:
    """Where to keep what a repair changes: ``IMAGE.kept``, or the first name after it."""
    if keep_at is not None:
        refuse_existing(keep_at, force=False, sources=[path])
        return keep_at
    if path.is_block_device():
        raise UsageError(
            f"{path}: is a device, beside which nothing can be kept", hint="--keep FILE"
        )
    for number in range(1, 1000):
        name = f"{path.name}.kept" if number == 1 else f"{path.name}.kept-{number}"
        if not os.path.lexists(path.with_name(name)):
            return path.with_name(name)
    raise RefusedError(f"{path}: there are a thousand kept copies of it", hint="remove some")
