"""Actions on a guest's files."""

from __future__ import annotations

import os
import re
import stat as _stat
from collections.abc import Callable, Iterable, Iterator

from imgtools.api.guest import MAX_TEXT, Guest, size_of
from imgtools.api.records import Action
from imgtools.guest.steps import (
    Content,
    Link,
    Mkdir,
    Move,
    Nothing,
    Remove,
    Rewrite,
    Touch,
    Truncate,
    Write,
)
from imgtools.guest.tree import GuestTree, show


def remove(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Remove every file and folder that the patterns match, with all that is below."""
    yield from remove_paths(guest, guest.glob(*patterns))


def remove_files(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Remove what the patterns match, but no folders."""
    for path in guest.glob(*patterns):
        if not _stat.S_ISDIR(guest.tree.lstat(path).mode):
            yield from remove_paths(guest, [path])


def remove_paths(guest: Guest, paths: Iterable[bytes]) -> Iterator[Action]:
    """Remove these files and folders, with all that is below.

    Of a folder on which or below which a filesystem is mounted, what can be removed is.
    """
    for path in paths:
        if _holds_mount(guest.tree, path):
            below = [path.rstrip(b"/") + b"/" + name for name in guest.tree.listdir(path)]
            yield from remove_paths(guest, below)
            continue
        step = Remove(path=path, recursive=True, force=True)
        yield Action(verb="removed", path=path, step=step, freed=guest.size(path))


def empty(guest: Guest, *patterns: str) -> Iterator[Action]:
    """Cut regular files to no bytes, as programs need that do not make a file themselves."""
    yield from empty_paths(guest, guest.glob(*patterns))


def empty_paths(guest: Guest, paths: Iterable[bytes]) -> Iterator[Action]:
    """Cut these to no bytes where they are regular files."""
    for path in paths:
        found = guest.tree.lstat(path)
        if _stat.S_ISREG(found.mode) and found.size:
            step = Truncate(path=path, size=0)
            yield Action(verb="changed", path=path, step=step, freed=size_of(found))


def _holds_mount(tree: GuestTree, path: bytes) -> bool:
    points = [mount.mountpoint for mount in tree.mounts if mount.mountpoint != b"/"]
    if not points:
        return False
    resolved = tree.resolve(path, follow_last=False)
    return any(point == resolved or point.startswith(resolved + b"/") for point in points)


def write(guest: Guest, path: str | bytes, content: bytes, mode: str = "0644") -> Iterator[Action]:
    """Write a file if its content is another; ``mode`` is for a new one, as are its folders."""
    target = os.fsencode(path)
    if guest.read(target) == content:
        return
    folder = target.rpartition(b"/")[0]
    if folder and not guest.tree.is_dir(folder):
        yield Action(verb="made", path=folder, step=Mkdir(path=folder, parents=True))
    text = Content(data=content)
    step = Write(path=target, content=text, mode=None if guest.tree.exists(target) else mode)
    yield Action(verb="written", path=target, step=step)


def rewrite(
    guest: Guest, path: str | bytes, transform: Callable[[bytes], bytes]
) -> Iterator[Action]:
    """Pass a file through ``transform``; nothing where there is none, or nothing changes."""
    target = os.fsencode(path)
    content = guest.read(target)
    if content is not None and transform(content) != content:
        step = Rewrite(path=target, transform=transform, limit=MAX_TEXT)
        yield Action(verb="edited", path=target, step=step)


def remove_lines(guest: Guest, line: re.Pattern[bytes], *patterns: str) -> Iterator[Action]:
    """Remove what ``line`` matches from every regular file that the patterns match."""
    for path in guest.glob(*patterns):
        if guest.tree.is_file(path):
            yield from rewrite(guest, path, lambda text: line.sub(b"", text))


def touch(guest: Guest, path: str | bytes) -> Iterator[Action]:
    """Make an empty file where there is none."""
    target = os.fsencode(path)
    if not guest.tree.exists(target):
        yield Action(verb="made", path=target, step=Touch(path=target))


def link(guest: Guest, target: str, path: str | bytes) -> Iterator[Action]:
    """Make ``path`` a symbolic link to ``target``, in place of a file or another link."""
    where = os.fsencode(path)
    step = Link(path=where, target=os.fsencode(target), symbolic=True, force=True)
    folder = where.rpartition(b"/")[0]
    if folder and not guest.tree.is_dir(folder):
        yield Action(verb="made", path=folder, step=Mkdir(path=folder, parents=True))
    elif step.idle(guest.tree):
        return
    yield Action(verb="made", path=where, step=step)


def move(path: bytes, to: bytes) -> Iterator[Action]:
    """Give a file or folder another name; ``to`` is the whole new path."""
    yield Action(verb="moved", path=path, step=Move(path=path, to=to), detail=f"to {show(to)}")


def note(path: bytes, text: str) -> Iterator[Action]:
    """Tell the user about a file; nothing is changed, and it counts as no change."""
    yield Action(verb="noted", path=path, step=Nothing(), detail=text)
