"""Walk a folder for the doctor of backing chains: every file once, bounded, following no folder.

What cannot be read becomes a notice; nothing in the folder stops the walk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imgtools.errors import (
    ImageNotFoundError,
    ImageTruncatedError,
    ImageUnreadableError,
    ImgtoolsError,
)
from imgtools.image.header import Problem
from imgtools.image.member import SUFFIXES, Identity, Member, look
from imgtools.image.newfile import is_partial
from imgtools.model.notices import Notice

MAX_ENTRIES = 200_000
MAX_FOLDERS = 64
"""How many folders below each other are entered."""
MAX_NOTICES = 100
RECORD_SUFFIX = ".imgtools"


@dataclass(slots=True, kw_only=True)
class Scan:
    """What a walk found: images by identity, folders of files half made, records of changes."""

    folder: Path
    members: dict[Identity, Member] = field(default_factory=dict)
    partials: list[Path] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def note(self, code: str, message: str) -> None:
        """Keep a notice; after some it is enough."""
        if len(self.notices) < MAX_NOTICES:
            self.notices.append(Notice(code=code, message=message))


def scan(
    folder: Path,
    *,
    recursive: bool = False,
    untrusted: bool = False,
    formats: Mapping[Identity, str | None] | None = None,
) -> Scan:
    """Look at every file in ``folder`` (and with ``recursive`` below it).

    ``formats`` tells the format of images by identity, where somebody has stated it (a domain);
    they are images whatever they are called.  With ``untrusted`` no symbolic link is followed.
    Raises ImageNotFoundError and ImageUnreadableError for the folder itself.
    """
    found = Scan(folder=folder)
    try:
        with os.scandir(folder):
            pass
    except FileNotFoundError:
        raise ImageNotFoundError(f"{folder}: no such folder", hint="check the name") from None
    except OSError as error:
        raise ImageUnreadableError(f"{folder}: cannot be read: {error.strerror}") from None
    # Links last, so that an image is known by its own name.
    entries = sorted(_walk(found, recursive=recursive), key=_links_last)
    for path, is_link in entries:
        if not (is_link and untrusted):
            _look(found, path, formats or {}, untrusted=untrusted)
    return found


def _links_last(entry: tuple[Path, bool]) -> tuple[bool, Path]:
    return entry[1], entry[0]


def _walk(found: Scan, *, recursive: bool) -> Iterator[tuple[Path, bool]]:
    """Yield the regular files, and whether each is there by a symbolic link."""
    count = 0
    waiting = [(found.folder, 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if count > MAX_ENTRIES:
                        found.note("chain.limit", f"{folder}: only {MAX_ENTRIES} entries were read")
                        return
                    path = Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        _folder(found, path, waiting, depth + 1, recursive=recursive)
                    elif _is_file(entry):
                        yield path, entry.is_symlink()
        except OSError as error:
            found.note("chain.unreadable", f"{folder}: cannot be read: {error.strerror}")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _folder(
    found: Scan, path: Path, waiting: list[tuple[Path, int]], depth: int, *, recursive: bool
) -> None:
    if is_partial(path):
        found.partials.append(path)
    elif recursive and depth <= MAX_FOLDERS:
        waiting.append((path, depth))
    elif recursive:
        found.note("chain.limit", f"{path}: folders below folders without end; not entered")


def _look(
    found: Scan, path: Path, formats: Mapping[Identity, str | None], *, untrusted: bool
) -> None:
    if path.name.startswith(".") and path.name.endswith(RECORD_SUFFIX):
        found.records.append(path)
        return
    try:
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in found.members:
            return
        known = identity in formats
        member = look(path, formats.get(identity), only_images=not known, untrusted=untrusted)
    except ImageTruncatedError as error:
        member = _empty(path, identity, error)
    except ImgtoolsError as error:
        if path.suffix.lower() in SUFFIXES:
            found.note(error.code, error.message)
        return
    except OSError:
        return
    if member is not None:
        found.members[member.identity] = member


def _empty(path: Path, identity: Identity, error: ImgtoolsError) -> Member | None:
    if path.suffix.lower() not in SUFFIXES:
        return None
    message = error.message.removeprefix(f"{path}: ")
    return Member(
        path=path,
        identity=identity,
        format="raw",
        problems=(Problem(code=error.code, message=message),),
    )
