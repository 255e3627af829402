"""Compare two `FileTree`s of one filesystem in everything that the protocol gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from imgtools.errors import DirectUnsupportedError
from imgtools.model.files import FileTree, Stat, kind_of_mode

FIELDS = ("ino", "mode", "nlink", "uid", "gid", "size", "rdev", "blksize", "blocks", "mtime_ns")
SPACE = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree")


def join(directory: bytes, name: bytes) -> bytes:
    """``name`` in ``directory``."""
    return directory.rstrip(b"/") + b"/" + name


def walk(tree: FileTree, directory: bytes = b"/") -> Iterator[tuple[bytes, Stat]]:
    """Every path below ``directory`` with its lstat."""
    names = sorted(entry.name for entry in tree.scandir(directory))
    for name, found in zip(names, tree.lstat_many(directory, names), strict=True):
        assert found is not None, name
        path = join(directory, name)
        yield path, found
        if found.kind == "d":
            yield from walk(tree, path)


def checksum(tree: FileTree, path: bytes) -> str:
    """SHA-256 of a file, read to its end."""
    digest = hashlib.sha256()
    with tree.open(path) as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _node(tree: FileTree, path: bytes, found: Stat, skip: frozenset[str]) -> dict[str, object]:
    facts: dict[str, object] = {name: getattr(found, name) for name in FIELDS if name not in skip}
    if "xattrs" not in skip:
        facts["xattrs"] = tree.getxattrs(path)
    if found.kind == "l":
        facts["link"] = tree.readlink(path)
    elif found.kind == "r":
        facts["sha256"] = checksum(tree, path)
    elif found.kind == "d":
        facts["kinds"] = {
            entry.name
            for entry in tree.scandir(path)
            if entry.kind not in ("u", _kind(tree, path, entry.name))
        }
    return facts


def _kind(tree: FileTree, directory: bytes, name: bytes) -> str:
    return kind_of_mode(tree.lstat(join(directory, name)).mode)


def differences(
    ours: FileTree, theirs: FileTree, skip: frozenset[str] = frozenset(), limit: int = 20
) -> list[str]:
    """What ``ours`` answers otherwise than ``theirs``, at most ``limit`` lines."""
    found: list[str] = []
    mine, other = dict(walk(ours)), dict(walk(theirs))
    found += [
        f"{path!r} only in {'ours' if path in mine else 'theirs'}"
        for path in mine.keys() ^ other.keys()
    ]
    for path in sorted(mine.keys() & other.keys()):
        if len(found) > limit:
            break
        left = _node(ours, path, mine[path], skip)
        right = _node(theirs, path, other[path], skip)
        found += [
            f"{path!r} {name}: {left[name]!r:.200} != {right[name]!r:.200}"
            for name in left
            if left[name] != right[name]
        ]
    return found + space_differences(ours, theirs)


def space_differences(ours: FileTree, theirs: FileTree) -> list[str]:
    """Differences of statvfs; none where ours refuses to answer."""
    try:
        left = ours.statvfs()
    except DirectUnsupportedError:
        return []
    right = theirs.statvfs()
    return [
        f"statvfs {name}: {getattr(left, name)} != {getattr(right, name)}"
        for name in SPACE
        if getattr(left, name) != getattr(right, name)
    ]
