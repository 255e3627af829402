"""Make an image whole or not at all: in a folder of its own beside the target, then renamed.

The folder ``.NAME.imgtools-partial`` holds the file under its final name, so that formats of
several files (VMDK extents) have the right names in them.  It is locked (flock) while we, or our
qemu-img, live: a folder that nobody locks is what a killed run left, and the next run removes it,
with what that run had half put into place (see ``placing``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgtools.errors import (
    ImageError,
    ImageNotFoundError,
    ImgtoolsError,
    InUseError,
    ReadOnlyError,
    RefusedError,
)
from imgtools.image.placing import put_into_place, take_back
from imgtools.process import inheriting

SUFFIX = ".imgtools-partial"
_LONGEST = 255  # bytes of a name (Linux, NAME_MAX)


def refuse_existing(target: Path, *, force: bool, sources: Iterable[Path] = ()) -> None:
    """Raise RefusedError if ``target`` exists without ``force``, or is one of ``sources``."""
    for source in sources:
        with contextlib.suppress(OSError):
            if source.samefile(target):
                raise RefusedError(
                    f"{target}: is the source, or the source rests on it",
                    hint="write to another name, and rename it afterwards",
                )
    if target.is_dir():
        raise RefusedError(f"{target}: is a folder", hint="name the new image itself")
    if os.path.lexists(target) and not force:
        raise RefusedError(f"{target}: exists already", hint="--force overwrites it")


@contextlib.contextmanager
def new_file(target: Path, *, force: bool = False, sources: Iterable[Path] = ()) -> Iterator[Path]:
    """A path to write the image ``target`` at; put into place, synced, when the block succeeds.

    Whatever ends the block leaves nothing behind, and an older ``target`` as it was.  Of a link
    the file behind it is replaced, in the folder where that lies.  Raises RefusedError (see
    `refuse_existing`), InUseError when another imgtools is making the same file, ReadOnlyError,
    ImageNotFoundError for a folder that is not there, and ImageError.
    """
    refuse_existing(target, force=force, sources=sources)
    if target.exists() and not target.is_file():
        # Even with force: a rename would put a file in place of /dev/null.
        raise RefusedError(f"{target}: is no file", hint="name a file that may be replaced")
    target = behind_links(target)
    folder = partial_folder(target)
    fd = _claim(folder, target)
    try:
        with inheriting([fd]):
            yield folder / target.name
        try:
            put_into_place(folder, target, force=force)
        except OSError as error:
            raise ImageError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            take_back(folder)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def behind_links(target: Path) -> Path:
    """Where a file called ``target`` really lies: a link may lead to another disk.

    Raises RefusedError for links that lead in a circle.
    """
    if not target.is_symlink():
        return target
    real = Path(os.path.realpath(target))
    if real.is_symlink():
        raise RefusedError(f"{target}: is a link that leads nowhere", hint="remove the link")
    return real


def partial_folder(target: Path) -> Path:
    """Where `new_file` makes ``target``."""
    name = f".{target.name}{SUFFIX}"
    if len(os.fsencode(name)) > _LONGEST:
        import hashlib  # which takes its time to load, for a name that hardly anybody has

        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}{SUFFIX}"
    return target.absolute().parent / name


def is_partial(path: Path) -> bool:
    """True for the name of a folder that `new_file` makes."""
    return path.name.startswith(".") and path.name.endswith(SUFFIX)


def leftover(folder: Path, *, remove: bool = False) -> bool:
    """True when ``folder`` is what a killed run left: nobody is at work in it.

    With ``remove`` it is gone afterwards.  Raises ReadOnlyError when it cannot be removed.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), folder.lstat()):
            return False
        if remove:
            take_back(folder)
            _empty(folder)
            folder.rmdir()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        os.close(fd)
    return True


def _claim(folder: Path, target: Path) -> int:
    """Make the folder and lock it; a dead run's is emptied."""
    for _ in range(100):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot_write(folder.parent, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), folder.lstat()):
                    take_back(folder)
                    _empty(folder)
                    return fd
        except BlockingIOError:
            os.close(fd)
            raise _being_written(target) from None
        except OSError as error:
            os.close(fd)
            raise _cannot_write(folder, error) from error
        os.close(fd)  # another run has just removed it: once more
    raise _being_written(target)


def _being_written(target: Path) -> InUseError:
    return InUseError(
        f"{target}: another imgtools, or the qemu-img of one that was killed, is writing it",
        hint="wait until it is done, or end that process",
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _cannot_write(folder: Path, error: OSError) -> ImgtoolsError:
    if isinstance(error, FileNotFoundError):
        return ImageNotFoundError(f"{folder}: no such folder", hint="make it first: mkdir -p")
    return ReadOnlyError(
        f"{folder}: cannot be written: {error.strerror}", hint="write to another folder"
    )
