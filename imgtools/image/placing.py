"""Give the files of a new image their names, and take that back where it was cut short.

One file is renamed, which is done or not.  An image of several (a VMDK and its extents) cannot be:
its new files get their names as hard links, the file that names the others last; older ones are
moved into the new image's folder before, the file that named the others first.  So there is never
an image with files that are not its own, and of a run that was killed between two names the folder
tells which files it had placed: `take_back` removes those, and puts the older ones back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from imgtools.errors import ImageError, RefusedError

# Where older files wait.  The one that names the others is put back last.
_OLDER_FILES, _OLDER = ".older-files", ".older"


def put_into_place(folder: Path, target: Path, *, force: bool) -> None:
    """Sync what was made in ``folder``, and give it its names beside ``target``.

    Without ``force`` nothing is replaced.  Raises RefusedError, ImageError, OSError.
    """
    made = sorted(folder.iterdir(), key=lambda path: path.name == target.name)
    if not made or made[-1].name != target.name:
        raise ImageError(f"{target}: was not made")
    for path in made:
        _sync(path)
    finals = [target.with_name(path.name) for path in made]
    _refuse_in_the_way(finals[:-1], force=force)
    if force and len(made) == 1:
        made[0].replace(target)
    else:
        if force:
            _set_aside(folder, finals)
        for path, final in zip(made, finals, strict=True):
            _link(path, final)
    _sync(folder.parent)


def take_back(folder: Path) -> None:
    """Undo a `put_into_place` that did not get to its end; nothing else is touched.

    Raises OSError.
    """
    if folder.stat().st_uid != os.geteuid():
        return  # what another user has made says nothing about our files
    made = [path for path in folder.iterdir() if path.name not in (_OLDER, _OLDER_FILES)]
    placed = [path for path in made if _is_same(path, folder.with_name(path.name))]
    if len(placed) == len(made):
        return
    for path in placed:
        folder.with_name(path.name).unlink()
    for older in (folder / _OLDER_FILES, folder / _OLDER):
        for path in older.iterdir() if older.is_dir() else ():
            if os.path.lexists(folder.with_name(path.name)):
                return  # no file system for hard links: what has that name is not the older one
            path.rename(folder.with_name(path.name))


def _set_aside(folder: Path, finals: Sequence[Path]) -> None:
    for name in (_OLDER, _OLDER_FILES):
        (folder / name).mkdir()
    for final in reversed(finals):
        older = folder / (_OLDER if final == finals[-1] else _OLDER_FILES)
        with contextlib.suppress(FileNotFoundError):
            final.rename(older / final.name)
    for path in (folder / _OLDER, folder / _OLDER_FILES, folder, folder.parent):
        _sync(path)


def _link(path: Path, final: Path) -> None:
    """Unlike a rename this never replaces anything."""
    try:
        final.hardlink_to(path)
    except FileExistsError:
        raise _just_made(final) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(final):
            raise _just_made(final) from None
        path.rename(final)


def _refuse_in_the_way(finals: Sequence[Path], *, force: bool) -> None:
    for final in finals:
        if final.is_dir() and not final.is_symlink():
            raise RefusedError(f"{final}: is a folder", hint="write the image to another folder")
        if os.path.lexists(final) and not force:
            raise RefusedError(f"{final}: exists already", hint="--force overwrites it")


def _just_made(final: Path) -> RefusedError:
    return RefusedError(
        f"{final}: has just been made by another program", hint="--force overwrites it"
    )


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except OSError:
        return False


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
