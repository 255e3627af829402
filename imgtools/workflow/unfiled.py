"""Disks to read that are no image files: what a URI names, and a folder shown as a FAT (vvfat).

A folder is given as ``DIR``, or as qemu has it: ``[fat:][12:|16:|32:][floppy:]DIR``.  qemu's vvfat
follows symbolic links (it uses stat(2)) and opens whatever it meets, so the folder is looked
through first; a stranger's word never names one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from imgtools.appliance.remote import no_answer, refuse_stranger, remote_node, shown
from imgtools.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTruncatedError,
    ImageUnreadableError,
    RefusedError,
    ToolError,
    UsageError,
)
from imgtools.image.qemu import node_size
from imgtools.model.disks import Disk, DiskRequest, ImageLayer
from imgtools.nodes import Node, json_name, spec

MAX_FILES = 1 << 16
_FOLDER = re.compile(r"(?:fat:)?(?:(12|16|32):)?(floppy:)?(.+)", re.DOTALL)


def open_unfiled(request: DiskRequest, folder: Path, *, untrusted: bool) -> Disk:
    """The disk, with one layer that carries its node; ``folder`` is private and outlives it.

    Raises UsageError for what does not fit together, RefusedError for a folder that is not
    trusted or would show more than itself, ImageNotFoundError, ImageError for what does not
    answer, and what `imgtools.appliance.remote.remote_node` raises.
    """
    if request.format == "vvfat":
        path, node = _folder_node(request, folder, untrusted=untrusted)
    else:
        path, node = _remote_node(request, folder, untrusted=untrusted)
    name = "vvfat" if request.format == "vvfat" else node["driver"]
    layer = ImageLayer(path=path, format=name, virtual_size=_size(request, node), node=node)
    if request.uri is not None:  # a password stays out of what is shown
        request = replace(request, uri=shown(request.uri))
    return Disk(request=request, layers=(layer,))


def _remote_node(request: DiskRequest, folder: Path, *, untrusted: bool) -> tuple[Path, Node]:
    uri = request.uri
    if uri is None:
        raise UsageError(
            f"{request.name}: -f nbd needs a URL",
            hint="nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=/PATH",
        )
    # What an export holds is a disk as it is, unless a format says otherwise.
    plain = DiskRequest(uri=uri, format="raw" if request.format == "nbd" else request.format)
    if request.format == "nbd" and not uri.startswith("nbd"):
        raise UsageError(f"{shown(uri)}: is no nbd URL", hint="leave -f nbd out")
    if untrusted:
        refuse_stranger(uri, plain.format)
    return Path(shown(uri)), remote_node(Disk(request=plain, uri=uri), folder)


def _folder_node(request: DiskRequest, folder: Path, *, untrusted: bool) -> tuple[Path, Node]:
    if request.path is None:
        raise UsageError(f"{request.name}: -f vvfat needs a folder of this host")
    path, kind, floppy = request.path, None, False
    if not path.is_dir():
        found = _FOLDER.fullmatch(os.fspath(path))
        assert found is not None
        kind, floppy, path = found[1], bool(found[2]), Path(found[3])
    if untrusted:
        raise RefusedError(
            f"{path}: with --untrusted no folder of this host is shown as a disk",
            hint="leave --untrusted out if you have named the folder yourself",
        )
    if not path.is_dir():
        raise ImageNotFoundError(f"{path}: no such folder", hint="-f vvfat reads a folder")
    path = path.absolute()
    _look_through(path)
    fat: Node = {"driver": "vvfat", "read-only": True, "floppy": floppy}
    fat["dir"] = json_name(path, folder / "vvfat")
    if kind is not None:
        fat["fat-type"] = int(kind)
    return path, {"driver": "raw", "read-only": True, "file": fat}


def _look_through(top: Path) -> None:
    """Raise RefusedError for what qemu would follow out of the folder, or be blocked by."""
    real = Path(os.path.realpath(top))
    try:
        for count, entry in enumerate(_entries(top)):
            if count >= MAX_FILES:
                raise RefusedError(f"{top}: more than {MAX_FILES} files do not go into a FAT")
            if entry.is_symlink() and not _stays(entry, real):
                raise RefusedError(
                    f"{entry.path}: is a link out of the folder, or to no file",
                    hint="remove it, or copy what it points to",
                )
            if not entry.is_dir() and not entry.is_file():
                raise RefusedError(f"{entry.path}: is neither a file nor a folder")
    except OSError as error:
        raise ImageUnreadableError(f"{error.filename}: {error.strerror}") from error


def _stays(link: os.DirEntry[str], folder: Path) -> bool:
    return link.is_file() and Path(os.path.realpath(link)).is_relative_to(folder)


def _entries(top: Path) -> Iterator[os.DirEntry[str]]:
    todo = [os.fspath(top)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def _size(request: DiskRequest, node: Node) -> int:
    try:
        size = node_size(node)
    except ToolError as error:
        if request.uri is not None:
            raise no_answer(request.uri, spec(node), error) from error
        text = error.message.removeprefix("qemu-img: ").replace(spec(node), request.name)
        text = text.removeprefix(f"Could not open {request.name!r}: ")
        raise ImageError(f"{request.name}: {text}") from error
    if size == 0:
        name = request.name if request.uri is None else shown(request.uri)
        raise ImageTruncatedError(f"{name}: is empty (0 bytes)", hint="check the name")
    return size
