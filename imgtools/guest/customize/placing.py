"""Put files and links in their places, with the SELinux labels that the guest's policy wants.

The appliance runs without SELinux, so that what it makes has no label, and what has no label is
denied to confined programs.  Without the guest's policy the kernel's own rule for new files serves:
a file has the type of its folder; what it replaces gives it its own.
"""

from __future__ import annotations

import stat as _stat

from imgtools.errors import GuestIsADirectoryError
from imgtools.guest.steps import Done
from imgtools.guest.tree import GuestTree, show
from imgtools.guest.writing import GuestFiles

LABEL = b"security.selinux"


def label_of(tree: GuestTree, path: bytes) -> bytes | None:
    """The label of ``path`` itself, None where it has none."""
    return tree.getxattrs(path).get(LABEL)


def with_type(label: bytes, kind: bytes) -> bytes:
    """A label with another type, for an object: ``USER:object_r:KIND[:LEVEL]``."""
    fields = label.split(b":", 3)
    if len(fields) < 3:
        return label
    rest = fields[3:] or ([b""] if label.endswith(b"\0") else [])
    tail = b":" + rest[0] if fields[3:] else (b"\0" if rest else b"")
    return b":".join((fields[0], b"object_r", kind)) + tail


def set_label(guest: GuestFiles, path: bytes, label: bytes | None) -> None:
    """Give ``path`` a label; None leaves it alone."""
    if label is not None and label_of(guest, path) != label:
        guest.set_xattr(path, LABEL, label)


def parent_label(guest: GuestFiles, path: bytes) -> bytes | None:
    """What a new name at ``path`` (resolved) inherits."""
    return label_of(guest, guest.resolve(path.rpartition(b"/")[0] or b"/"))


def make_folders(guest: GuestFiles, path: bytes, mode: int = 0o755) -> list[Done]:
    """Make a folder and those above, labelled; those that are there are left alone."""
    done: list[Done] = []
    if not path or guest.is_dir(path):
        return done
    done += make_folders(guest, path.rpartition(b"/")[0])
    guest.mkdir(path, mode)
    set_label(guest, path, parent_label(guest, path))
    return [*done, Done(verb="made", path=path)]


def put_file(guest: GuestFiles, path: bytes, content: bytes, mode: int = 0o644) -> list[Done]:
    """Write a file if its content is another; ``mode`` is for a new one.  A link is followed.

    Folders on the way are made.
    """
    done = make_folders(guest, path.rpartition(b"/")[0])
    resolved = guest.resolve(path)
    if guest.try_lstat(resolved) is None:
        guest.create(resolved, [content])
        guest.chmod(resolved, mode)
        set_label(guest, resolved, parent_label(guest, resolved))
        return [*done, Done(verb="written", path=path)]
    same_size = guest.lstat(resolved).size == len(content)
    if same_size and guest.read(resolved, limit=len(content)) == content:
        return []
    guest.create(resolved, [content])
    return [Done(verb="edited", path=path)]


def put_link(guest: GuestFiles, path: bytes, target: bytes) -> list[Done]:
    """Make ``path`` a symbolic link, in place of a file or another link, whose label stays."""
    done = make_folders(guest, path.rpartition(b"/")[0])
    found = guest.try_lstat(path)
    if found is not None and _stat.S_ISLNK(found.mode) and guest.readlink(path) == target:
        return []
    if found is not None and _stat.S_ISDIR(found.mode):
        raise GuestIsADirectoryError(f"{show(path)}: is a directory in the guest")
    place = guest.resolve(path, follow_last=False)
    label = parent_label(guest, place) if found is None else label_of(guest, place)
    if found is not None:
        guest.remove(place)
    guest.symlink(place, target)
    set_label(guest, place, label)
    return [
        *done,
        Done(verb="made", path=path, detail=f"link to {target.decode(errors='replace')}"),
    ]
