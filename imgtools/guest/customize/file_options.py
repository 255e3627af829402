"""Options that make, change and remove files: virt-customize's names, values and meaning."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imgtools.errors import UsageError
from imgtools.guest.archives import copy_in, tar_in
from imgtools.guest.customize.base import Custom, Row, path_of
from imgtools.guest.customize.file_steps import Copy, Delete, Scrub, Upload
from imgtools.guest.customize.values import guest_path, host_file, pair
from imgtools.guest.editing.expressions import by_expressions
from imgtools.guest.owners import new_mode
from imgtools.guest.steps import (
    AppendLine,
    Chmod,
    Chown,
    Content,
    Done,
    Edit,
    Link,
    Mkdir,
    Move,
    Step,
    Touch,
    Truncate,
    Verb,
    Write,
)
from imgtools.guest.tree import GuestTree
from imgtools.guest.writing import GuestFiles


def _append_line(value: str) -> Step:
    path, line = pair(value, "FILE:LINE")
    if "\n" in line or "\r" in line:
        raise UsageError("a line holds no line break", hint="use the option once for each line")
    return AppendLine(path=guest_path(path), line=line, create=True)


def _chmod(value: str) -> Step:
    mode, path = pair(value, "MODE:FILE")
    if re.fullmatch(r"[1-9][0-9]*", mode):
        # chmod(1) reads octal digits, virt-customize a decimal number.
        raise UsageError(f"{mode}: is that octal?", hint=f"write 0{mode}, or as u+x,go-w")
    new_mode(mode, 0)
    return Chmod(path=guest_path(path), mode=mode)


def _chown(value: str) -> Step:
    user, group, path = [*value.split(":", 2), "", ""][:3]
    if not user or not group or not path:
        raise UsageError("expected USER:GROUP:PATH", hint="numbers, or names of the guest")
    return Chown(path=guest_path(path), owner=f"{user}:{group}")


def _copy(value: str) -> Step:
    source, target = pair(value, "SOURCE:DEST")
    return Copy(path=guest_path(source), to=guest_path(target))


def _copy_in(value: str) -> Step:
    source, folder = _host_and_guest(value, "LOCALPATH:DIR")
    return copy_in([Path(source)], folder, owner=None, told=lambda _count: None)


def _edit(value: str) -> Step:
    path, expression = pair(value, "FILE:EXPR")
    return Edit(path=guest_path(path), transform=by_expressions([expression]))


def _link(value: str) -> Step:
    target, *links = value.split(":")
    if not target or not all(links) or not links:
        raise UsageError("expected TARGET:LINK[:LINK..]")
    if "\0" in target:
        raise UsageError("a path holds no NUL")
    text = os.fsencode(target)
    return _Links(links=tuple(Link(path=guest_path(one), target=text, force=True) for one in links))


def _move(value: str) -> Step:
    source, target = pair(value, "SOURCE:DEST")
    return Move(path=guest_path(source), to=guest_path(target))


def _tar_in(value: str) -> Step:
    archive, folder = _host_and_guest(value, "TARFILE:DIR")
    return tar_in(host_file(archive), folder, told=lambda _count: None)


def _upload(value: str) -> Step:
    file, target = _host_and_guest(value, "FILE:DEST")
    return Upload(file=host_file(file), to=target)


def _write(value: str) -> Step:
    path, text = pair(value, "FILE:CONTENT")
    return Write(path=guest_path(path), content=Content(data=os.fsencode(text)))


def _host_and_guest(value: str, shape: str) -> tuple[str, bytes]:
    """A path of the host and one of the guest; the colon between them is followed by a slash."""
    found = re.fullmatch(r"(?s)(.+?):(/.*)", value)
    if found is None:
        raise UsageError(f"expected {shape}", hint="paths in the guest start with /")
    return found[1], guest_path(found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Links:
    """Several links to one target."""

    links: tuple[Link, ...]

    def idle(self, tree: GuestTree) -> bool:
        """True if all are there."""
        return all(link.idle(tree) for link in self.links)

    def perform(self, guest: GuestFiles) -> list[Done]:
        """Make them."""
        return [done for link in self.links for done in link.perform(guest)]


_VERBS: dict[str, Verb] = {
    "append-line": "edited",
    "copy": "copied",
    "copy-in": "copied",
    "delete": "removed",
    "edit": "edited",
    "link": "made",
    "mkdir": "made",
    "move": "moved",
    "scrub": "removed",
    "tar-in": "copied",
    "upload": "written",
    "write": "written",
}


def _shown(step: Step) -> bytes:
    return step.links[0].path if isinstance(step, _Links) else path_of(step)


def _of(name: str, metavar: str, text: str, parse: Callable[[str], Step]) -> Custom:
    verb = _VERBS.get(name, "changed")
    return Custom(name=name, metavar=metavar, help=text, parse=parse, verb=verb, shown=_shown)


FILES: tuple[Row, ...] = (
    _of(
        "append-line",
        "FILE:LINE",
        "Add a line at the end of a file, with the file's own line ending; makes the file.",
        _append_line,
    ),
    _of("chmod", "MODE:FILE", "Change permissions: 0755, or as u+x,go-w.", _chmod),
    _of("chown", "USER:GROUP:PATH", "Change the owner, by the guest's names.", _chown),
    _of("copy", "SOURCE:DEST", "Copy a file or folder inside the guest.", _copy),
    _of("copy-in", "LOCALPATH:DIR", "Copy a file or folder of this host into DIR.", _copy_in),
    _of(
        "delete",
        "PATH",
        "Remove files and whole folders; *, ? and [...] match names.",
        lambda value: Delete(pattern=guest_path(value)),
    ),
    _of("edit", "FILE:EXPR", "Edit a file by an expression, as imgtools edit -e.", _edit),
    _of("link", "TARGET:LINK[:LINK..]", "Make symbolic links.", _link),
    _of(
        "mkdir",
        "DIR",
        "Make a folder, and those above it.",
        lambda value: Mkdir(path=guest_path(value), parents=True),
    ),
    _of("move", "SOURCE:DEST", "Move a file or folder inside the guest.", _move),
    _of(
        "scrub",
        "FILE",
        "Overwrite a file, then remove it.",
        lambda value: Scrub(path=guest_path(value)),
    ),
    _of("tar-in", "TARFILE:DIR", "Unpack a tar file of this host in DIR.", _tar_in),
    _of(
        "touch",
        "FILE",
        "Set a file's times to now; makes the file.",
        lambda value: Touch(path=guest_path(value)),
    ),
    _of(
        "truncate",
        "FILE",
        "Cut a file to no bytes.",
        lambda value: Truncate(path=guest_path(value)),
    ),
    _of(
        "truncate-recursive",
        "PATH",
        "Cut every file below PATH to no bytes.",
        lambda value: Truncate(path=guest_path(value), recursive=True),
    ),
    _of(
        "upload",
        "FILE:DEST",
        "Copy a file of this host, with its mode and owner, to DEST or into it.",
        _upload,
    ),
    _of("write", "FILE:CONTENT", "Write a file, byte for byte as given.", _write),
)
