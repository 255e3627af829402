"""Files of a guest, listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from imgtools.errors import GuestOperationError, ImgtoolsError
from imgtools.guest.mounting import MountRequest
from imgtools.guest.opening import Outcome, Session
from imgtools.guest.tree import GuestTree
from imgtools.model.files import Stat
from imgtools.workflow.checksums import checksum
from imgtools.workflow.files import for_each, guest_tree
from imgtools.workflow.selection import DiskArguments, run_selected, select_one


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """What to list: names only, ``long`` (with metadata), ``recursive``, or both.

    ``checksum`` is a type of `checksums.CHECKSUMS`, for regular files of a long recursive list.
    """

    long: bool = False
    recursive: bool = False
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of the guest.

    ``name`` as it is printed: a bare name, a path below the directory (recursive), or the
    directory's path joined with it (long and recursive).  ``device`` is the mountable it lies
    on.  ``flag`` is what ls puts behind the mode: ``+`` for an ACL, ``.`` for a SELinux label.
    """

    name: bytes
    stat: Stat | None = None
    target: bytes | None = None
    checksum: str | None = None
    device: str = ""
    flag: str = ""


class Sink(Protocol):
    """Where the entries go.  With *auto* a listing may start again from the beginning."""

    def restart(self) -> None:
        """Forget everything: the listing begins."""

    def directory(self, entries: Sequence[Entry]) -> None:
        """All entries of one directory (long, not recursive: with ``.`` and ``..``)."""

    def entry(self, entry: Entry) -> None:
        """One entry of a listing of any other kind."""


def ls(
    arguments: DiskArguments,
    directories: Sequence[bytes],
    options: ListOptions,
    sink: Sink,
    *,
    mounts: Sequence[MountRequest] = (),
) -> Outcome[list[ImgtoolsError]]:
    """List ``directories`` of the guest into ``sink``, in order, names sorted as bytes.

    A directory that cannot be listed stops no other: the result is the list of such failures.
    """
    selection = select_one(arguments)

    def task(session: Session) -> list[ImgtoolsError]:
        sink.restart()
        tree = guest_tree(session, mounts)
        return for_each(directories, _lister(tree, options, sink))

    return run_selected(task, selection, arguments)


def _lister(tree: GuestTree, options: ListOptions, sink: Sink) -> Callable[[bytes], None]:
    if options.long and options.recursive:
        return partial(_list_long_recursive, tree, sink, options.checksum)
    if options.long:
        return partial(_list_long, tree, sink)
    return partial(_list_recursive if options.recursive else _list_names, tree, sink)


def _list_names(tree: GuestTree, sink: Sink, directory: bytes) -> None:
    for entry in tree.scandir(directory):
        sink.entry(Entry(name=entry.name))


def _list_recursive(tree: GuestTree, sink: Sink, directory: bytes) -> None:
    # libguestfs's find: paths without the directory itself, sorted as whole strings.
    cut = len(tree.resolve(directory).rstrip(b"/")) + (directory == b"/")
    for name in sorted(path[cut:] for path, _, _ in tree.walk(directory)):
        sink.entry(Entry(name=name))


def _list_long_recursive(tree: GuestTree, sink: Sink, kind: str | None, directory: bytes) -> None:
    resolved = tree.resolve(directory)
    tree.scandir(resolved)  # a file or a missing folder fails before anything is listed
    sink.entry(_entry(tree, directory, tree.resolve(directory, follow_last=False), kind))
    prefix = directory if directory != b"/" else b""
    cut = len(resolved.rstrip(b"/"))
    for path, _, found in tree.walk(directory):
        sink.entry(_entry(tree, prefix + path[cut:], path, kind, found))


def _entry(
    tree: GuestTree, name: bytes, path: bytes, kind: str | None, found: Stat | None = None
) -> Entry:
    """The entry of ``path``, which is resolved but for its last component."""
    found = found or tree.lstat(path)
    return Entry(
        name=name,
        stat=found,
        target=tree.readlink(path) if found.kind == "l" else None,
        checksum=_checksum(tree, path, kind) if kind and found.kind == "r" else None,
        device=_device_of(tree, path),
    )


def _checksum(tree: GuestTree, path: bytes, kind: str) -> str:
    with tree.open(path) as stream:
        return checksum(stream, kind)


def _device_of(tree: GuestTree, path: bytes) -> str:
    for mount in reversed(tree.mounts):
        point = mount.mountpoint
        if point in (b"/", path) or path.startswith(point + b"/"):
            return mount.device
    return ""


def _list_long(tree: GuestTree, sink: Sink, directory: bytes) -> None:
    """What ``ls -lan`` shows inside the guest, where ``..`` of the root is the root."""
    resolved = tree.resolve(directory)
    above = resolved.rpartition(b"/")[0] or b"/"
    found = [(entry.name, stat) for entry, stat in tree.scandir_stat(resolved)]
    found += [(b".", tree.lstat(resolved)), (b"..", tree.lstat(above))]
    entries = []
    for name, stat in sorted(found, key=lambda pair: pair[0]):
        path = {b".": resolved, b"..": above}.get(name, resolved.rstrip(b"/") + b"/" + name)
        entries.append(
            Entry(
                name=name,
                stat=stat,
                target=tree.readlink(path) if stat.kind == "l" else None,
                device=_device_of(tree, path),
                flag=_flag(tree, path, stat),
            )
        )
    sink.directory(entries)


def _flag(tree: GuestTree, path: bytes, stat: Stat) -> str:
    """``+`` or ``.`` as ls(1) marks files with an ACL or with a SELinux label only."""
    names = _xattr_names(tree, path)
    # A link has no ACL of its own.
    if stat.kind != "l" and names & {b"system.posix_acl_access", b"system.posix_acl_default"}:
        return "+"
    return "." if b"security.selinux" in names else ""


def _xattr_names(tree: GuestTree, path: bytes) -> set[bytes]:
    try:
        return set(tree.getxattrs(path))
    except GuestOperationError:
        return set()
