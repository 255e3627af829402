"""Throw-away overlays with every lower layer pinned, so that qemu probes nothing.

libguestfs's own read-only drives let qemu probe guest bytes: a raw image whose first sector is a
qcow2 header shows the host file that the header names.  Here each vetted layer becomes a block
node with an explicit driver, file and backing node (``"backing": null`` at the base), given to
qemu by ``-blockdev``; the overlay refers to the top node by its name.  What a header says about
backing files is never read.  Nodes are read-only and opened with ``locking=off``: a running
guest is not disturbed, nor kept from starting.  Names may hold anything, as JSON has no separators
to escape.  Option names: qemu's qapi/block-core.json.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imgtools.appliance.remote import remote_node
from imgtools.errors import (
    ApplianceSpaceError,
    ImageError,
    ImageNotFoundError,
    ImageUnreadableError,
    ImageUnsupportedError,
    ToolError,
)
from imgtools.model import Disk, ImageLayer
from imgtools.process import run

OPEN_TIMEOUT = 60.0
# Formats whose qemu driver knows the option "backing" (supports_backing in block/*.c).
_WITH_BACKING = ("qcow2", "qcow", "qed", "vmdk")

Node = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A made overlay: ``path`` is ours to write, ``blockdev`` is the node below it, as JSON."""

    path: Path
    blockdev: str
    virtual_size: int


def make_overlay(disk: Disk, index: int, folder: Path, path: Path | None = None) -> Overlay:
    """Make the qcow2 overlay of ``disk`` in ``folder``, or at ``path`` (an older one is replaced).

    Opens the pinned chain in qemu-img first: damage is one line now and not a failed
    launch later.  Raises ImageError and its kin, MissingToolError, ApplianceSpaceError.
    """
    node = chain_node(disk, folder, index)
    size = _probe_size(disk, node)
    name = f"disk{index}"
    path = path or folder / f"{name}.qcow2"
    _make_private(path)
    reference = "json:" + json.dumps({"driver": "raw", "file": name})
    try:
        run(
            [
                *("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw"),
                *("-b", reference, str(path), str(size)),
            ]
        )
    except ToolError as error:
        ours = path.parent == folder
        raise ApplianceSpaceError(
            f"cannot make an overlay in {folder.parent if ours else path.parent}: {error.message}",
            hint="free some space there, or set TMPDIR to a folder on another disk"
            if ours
            else "free some space there, or name a folder on another disk with --workdir",
        ) from error
    return Overlay(path=path, blockdev=json.dumps({**node, "node-name": name}), virtual_size=size)


def _make_private(path: Path) -> None:
    """An empty file that only we may read: an overlay holds what the guest keeps secret."""
    try:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ApplianceSpaceError(
            f"{path}: cannot be made: {error.strerror}",
            hint="name a folder where you may write with --workdir, or by TMPDIR",
        ) from error


def chain_node(disk: Disk, folder: Path, index: int = 0, *, writable: bool = False) -> Node:
    """The pinned block node of everything below the overlay of ``disk``.

    With ``writable`` its active layer may be written (a commit); the layers below never.
    """
    if not disk.layers:
        return remote_node(disk, folder)
    node: Node | None = None
    for depth, layer in reversed(list(enumerate(disk.layers))):
        alias = folder / f"disk{index}.layer{depth}"
        node = _layer_node(layer, node, partial(_json_name, alias=alias))
        if writable and depth == 0:
            for part in (node, node["file"], node.get("data-file", {})):
                part.pop("read-only", None)
    assert node is not None
    return node


def commit_node(disk: Disk, overlay: Path, folder: Path) -> Node:
    """The node that ``qemu-img commit`` takes: ``overlay`` on the pinned, writable ``disk``."""
    return {
        **overlay_node(overlay, folder),
        "backing": chain_node(disk, folder, writable=True),
    }


def overlay_node(overlay: Path, folder: Path) -> Node:
    """The node of an overlay of ours, without what is below."""
    name = _json_name(overlay, folder / "overlay")
    return {"driver": "qcow2", "file": {"driver": "file", "filename": name}}


def _layer_node(layer: ImageLayer, backing: Node | None, name: Callable[[Path], str]) -> Node:
    # LUKS on the whole disk is opened in the appliance, with the keys, like any LUKS volume.
    driver = "raw" if layer.format == "luks" else layer.format
    if layer.snapshot_table is not None:
        # qemu loads an internal snapshot only in qemu-img and qemu-nbd, never by -blockdev.
        raise ImageUnsupportedError(
            f"{layer.path}: the appliance cannot read an internal snapshot",
            hint="copy it out first: qemu-img convert -l snapshot.name=NAME -O qcow2 IMAGE COPY",
        )
    node: Node = {"driver": driver, "read-only": True, "file": _file_node(layer.path, name)}
    if driver in _WITH_BACKING:
        node["backing"] = backing
    if driver == "qcow2" and layer.extents:
        node["data-file"] = _file_node(layer.extents[0], name)
    # The extents of a VMDK have no place in -blockdev's schema: qemu opens them by the names in
    # the descriptor, which were vetted.
    return node


def _file_node(path: Path, name: Callable[[Path], str]) -> Node:
    try:
        is_device = stat.S_ISBLK(path.stat().st_mode)
    except FileNotFoundError:
        raise ImageNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageUnreadableError(f"{path}: {error.strerror}") from error
    driver = "host_device" if is_device else "file"
    return {"driver": driver, "filename": name(path), "locking": "off", "read-only": True}


def _json_name(path: Path, alias: Path) -> str:
    """``path`` as JSON can hold it: by a link of ours if its bytes are not UTF-8."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        if not alias.is_symlink():
            alias.symlink_to(path)
        return str(alias)
    return text


def _probe_size(disk: Disk, node: Node) -> int:
    # info does not open the backing nodes (and trips over their options): it gives the size of
    # the top one, and map then opens them all.
    alone = {**node, "backing": None} if "backing" in node else node
    spec = "json:" + json.dumps(alone)
    try:
        done = run(["qemu-img", "info", "--output=json", spec], timeout=OPEN_TIMEOUT)
        size = int(json.loads(done.stdout)["virtual-size"])
        if node.get("backing"):
            spec = "json:" + json.dumps(node)
            run(
                ["qemu-img", "map", "--output=json", "--max-length=512", spec], timeout=OPEN_TIMEOUT
            )
    except ToolError as error:
        raise _open_error(disk, error, spec) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{disk.name}: qemu-img gave no size for it") from error
    # A raw file may end within a sector; the kernel only sees whole ones.
    sector = disk.request.block_size
    return -(-size // sector) * sector


def _open_error(disk: Disk, error: ToolError, spec: str) -> ImageError:
    line = error.message.replace(spec, disk.name).removeprefix("qemu-img: ")
    line = line.removeprefix("Could not open ").replace(f"'{disk.name}': ", "", 1)
    if "Unknown driver" in line or "Unknown protocol" in line:
        return ImageUnsupportedError(
            f"{disk.name}: {line}",
            hint="apt-get install --no-install-recommends qemu-block-extra",
        )
    if "Permission denied" in line:
        return ImageUnreadableError(
            f"{disk.name}: Permission denied",
            hint=f"run as a user who can read it (uid {os.geteuid()} cannot)",
        )
    return ImageError(f"{disk.name}: {line}", hint="imgtools info shows what is wrong with it")
